//! Processes of the binary under test: run to the end with a time limit, or kept as a server.

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use super::PATIENCE;

/// A command for the binary under test: run in the repository's root, without input, with its
/// default log level.
pub(crate) fn node_lua() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_node-lua"));
    command.current_dir(env!("CARGO_MANIFEST_DIR")).env_remove("RUST_LOG").stdin(Stdio::null());
    command
}

/// What a process left behind.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) stdout: String,
    pub(crate) stderr: String,
    /// `None` if it had to be killed because its time was up.
    pub(crate) status: Option<ExitStatus>,
}

impl Done {
    /// The exit status; `None` if a signal ended the process.
    pub(crate) fn code(&self) -> Option<i32> {
        self.status.and_then(|status| status.code())
    }

    /// Panics with everything known unless the process ended with exit status 0.
    #[track_caller]
    pub(crate) fn succeeded(self) -> Done {
        assert_eq!(self.code(), Some(0), "{self}");
        self
    }
}

impl std::fmt::Display for Done {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.status {
            Some(status) => writeln!(f, "{status}")?,
            None => writeln!(f, "killed: its time was up")?,
        }
        write!(f, "--- stdout\n{}--- stderr\n{}", self.stdout, self.stderr)
    }
}

/// Runs a command to its end, [`PATIENCE`] at most.
pub(crate) fn run(command: &mut Command) -> Done {
    run_for(command, PATIENCE)
}

/// Runs a command to its end; kills it once the limit is over.
pub(crate) fn run_for(command: &mut Command, limit: Duration) -> Done {
    let deadline = Instant::now() + limit;
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let stdout = collect(child.stdout.take().unwrap());
    let stderr = collect(child.stderr.take().unwrap());
    let in_time = stdout.ended_before(deadline) && stderr.ended_before(deadline);
    if !in_time {
        drop(child.kill());
    }
    let status = child.wait().unwrap();
    Done { stdout: stdout.text(), stderr: stderr.text(), status: in_time.then_some(status) }
}

/// An output read to its end by a thread of its own.
struct Collected {
    ended: Receiver<()>,
    thread: JoinHandle<Vec<u8>>,
}

fn collect(mut from: impl Read + Send + 'static) -> Collected {
    let (end, ended) = mpsc::channel();
    let thread = thread::spawn(move || {
        let mut bytes = Vec::new();
        drop(from.read_to_end(&mut bytes));
        drop(end);
        bytes
    });
    Collected { ended, thread }
}

impl Collected {
    fn ended_before(&self, deadline: Instant) -> bool {
        let left = deadline.saturating_duration_since(Instant::now());
        self.ended.recv_timeout(left) == Err(RecvTimeoutError::Disconnected)
    }

    fn text(self) -> String {
        String::from_utf8_lossy(&self.thread.join().unwrap()).into_owned()
    }
}

/// A process that keeps running while the test talks to it; killed when dropped.
#[derive(Debug)]
pub(crate) struct Server {
    child: Child,
    lines: Receiver<String>,
    stderr: Option<JoinHandle<Vec<u8>>>,
}

impl Server {
    /// Starts `node-lua args…`.
    pub(crate) fn start<A: AsRef<OsStr>>(args: impl IntoIterator<Item = A>) -> Server {
        Server::spawn(node_lua().args(args))
    }

    /// Starts a prepared command.
    pub(crate) fn spawn(command: &mut Command) -> Server {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let stdout = BufReader::new(child.stdout.take().unwrap());
        let (send, lines) = mpsc::channel();
        thread::spawn(move || {
            for line in stdout.split(b'\n').map_while(Result::ok) {
                if send.send(String::from_utf8_lossy(&line).into_owned()).is_err() {
                    break;
                }
            }
        });
        let stderr = collect(child.stderr.take().unwrap()).thread;
        Server { child, lines, stderr: Some(stderr) }
    }

    /// What the process reads; its command has a pipe for that.
    pub(crate) fn input(&mut self) -> ChildStdin {
        self.child.stdin.take().unwrap()
    }

    /// The next line the process prints.
    #[track_caller]
    pub(crate) fn line(&mut self) -> String {
        let line = self.next_line();
        line.unwrap_or_else(|| panic!("no further line; its stderr:\n{}", self.kill()))
    }

    /// The next line the process prints; `None` if it prints no more.
    #[track_caller]
    pub(crate) fn next_line(&mut self) -> Option<String> {
        match self.lines.recv_timeout(PATIENCE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Disconnected) => None,
            Err(RecvTimeoutError::Timeout) => {
                panic!("no further line in time; its stderr:\n{}", self.kill())
            }
        }
    }

    /// The port at the end of the next line: `listening on 127.0.0.1:4711`, or `4711` alone.
    #[track_caller]
    pub(crate) fn port(&mut self) -> u16 {
        let line = self.line();
        let end = line.rsplit([':', ' ']).next().unwrap_or_default();
        end.parse().unwrap_or_else(|error| panic!("no port at the end of {line:?}: {error}"))
    }

    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal, named as `kill` does: `TERM`, `INT`.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.id().to_string();
        let sent = Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", name, &id]).status();
        assert!(sent.unwrap().success(), "kill -s {name} {id}");
    }

    /// Waits for the process to end by itself; what it printed and nobody took is in `stdout`.
    pub(crate) fn finish(self, limit: Duration) -> Done {
        self.finish_before(Instant::now() + limit)
    }

    fn finish_before(mut self, deadline: Instant) -> Done {
        let mut stdout = String::new();
        let in_time = loop {
            match self.lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
                Ok(line) => stdout.extend([line.as_str(), "\n"]),
                Err(why) => break why == RecvTimeoutError::Disconnected,
            }
        };
        if !in_time {
            drop(self.child.kill());
        }
        let status = self.child.wait().unwrap();
        Done { stdout, stderr: self.take_stderr(), status: in_time.then_some(status) }
    }

    /// Ends the process at once and returns what it wrote to stderr.
    fn kill(&mut self) -> String {
        drop(self.child.kill());
        drop(self.child.wait());
        self.take_stderr()
    }

    fn take_stderr(&mut self) -> String {
        let bytes = self.stderr.take().map(|thread| thread.join().unwrap()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
