//! Contestants as child processes: started, listened to with a deadline, and always killed.

use std::collections::VecDeque;
use std::ffi::OsString;
use std::io::{BufRead, BufReader, Read};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child as Process, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use crate::sys;

/// A command line with what it needs from its environment.
#[derive(Clone, Debug, Default)]
pub struct Program {
    /// The program and its arguments.
    pub words: Vec<OsString>,
    /// Variables to set.
    pub environment: Vec<(&'static str, String)>,
}

impl Program {
    /// A program without arguments.
    pub fn new(path: impl Into<OsString>) -> Program {
        Program { words: vec![path.into()], environment: Vec::new() }
    }

    /// Adds one argument.
    pub fn arg(mut self, word: impl Into<OsString>) -> Program {
        self.words.push(word.into());
        self
    }

    /// Adds arguments.
    pub fn args(mut self, words: &[String]) -> Program {
        self.words.extend(words.iter().map(OsString::from));
        self
    }

    /// Sets a variable.
    pub fn env(mut self, name: &'static str, value: impl ToString) -> Program {
        self.environment.push((name, value.to_string()));
        self
    }
}

/// A running contestant; dropped, it and its children are killed.
#[derive(Debug)]
pub struct Child {
    process: Process,
    lines: Receiver<String>,
    errors: Arc<Mutex<VecDeque<String>>>,
}

impl Child {
    /// Starts the program in a process group of its own.
    ///
    /// # Errors
    ///
    /// When it cannot be executed.
    pub fn start(program: &Program) -> Result<Child, String> {
        let mut command = Command::new(&program.words[0]);
        command.args(&program.words[1..]);
        command.envs(program.environment.iter().map(|(name, value)| (name, value)));
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        sys::isolate(&mut command);
        let name = program.words[0].to_string_lossy().into_owned();
        let mut process = command.spawn().map_err(|e| format!("cannot start {name}: {e}"))?;
        let (sender, lines) = channel();
        let errors = Arc::new(Mutex::new(VecDeque::new()));
        if let Some(out) = process.stdout.take() {
            read_lines(out, move |line| drop(sender.send(line)));
        }
        if let Some(err) = process.stderr.take() {
            let errors = Arc::clone(&errors);
            read_lines(err, move |line| {
                let Ok(mut errors) = errors.lock() else { return };
                errors.push_back(line);
                if errors.len() > 8 {
                    errors.pop_front();
                }
            });
        }
        Ok(Child { process, lines, errors })
    }

    /// The process to measure.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The next line of its output; `None` when it ended.
    ///
    /// # Errors
    ///
    /// When the deadline passes first.
    pub fn line(&mut self, deadline: Instant) -> Result<Option<String>, String> {
        let left = deadline.saturating_duration_since(Instant::now());
        match self.lines.recv_timeout(left) {
            Ok(line) => Ok(Some(line)),
            Err(RecvTimeoutError::Disconnected) => Ok(None),
            Err(RecvTimeoutError::Timeout) => Err(self.complaint("it took too long")),
        }
    }

    /// Waits until it says `word` on a line of its own.
    ///
    /// # Errors
    ///
    /// When it ends or the time passes first.
    pub fn wait_for(&mut self, word: &str, limit: Duration) -> Result<(), String> {
        let deadline = Instant::now() + limit;
        loop {
            match self.line(deadline)? {
                Some(line) if line == word => return Ok(()),
                Some(_) => {}
                None => return Err(self.complaint(&format!("it ended before it said {word:?}"))),
            }
        }
    }

    /// What went wrong, with the last of what it wrote to its error stream.
    pub fn complaint(&self, what: &str) -> String {
        // The reader of the error stream may be a moment behind.
        thread::sleep(Duration::from_millis(50));
        let errors = self.errors.lock().map(|e| e.iter().cloned().collect::<Vec<_>>());
        format!("{what}: {}", errors.unwrap_or_default().join(" | "))
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        sys::kill_group(self.process.id());
        // Killed, it can be reaped without delay.
        let _ = self.process.wait();
    }
}

fn read_lines(from: impl Read + Send + 'static, mut each: impl FnMut(String) + Send + 'static) {
    thread::spawn(move || {
        for line in BufReader::new(from).lines() {
            let Ok(line) = line else { return };
            each(line);
        }
    });
}

/// A port on 127.0.0.1 that nobody uses just now.
///
/// # Errors
///
/// When there is none.
pub fn free_port() -> Result<u16, String> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|e| e.to_string())?;
    listener.local_addr().map(|a| a.port()).map_err(|e| e.to_string())
}
