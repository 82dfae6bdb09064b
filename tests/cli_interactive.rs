//! `-i`: lines from standard input are run one by one, while everything else goes on.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs::File;
use std::io::{BufReader, Read, Write};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{self, Receiver};
use std::time::Instant;

use rustix::pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt};
use support::expect::without_addresses;
use support::{Folder, PATIENCE, node_lua, run};

/// Runs lines that come from a file.
fn feed(options: &[&str], lines: &str) -> support::Done {
    let folder = Folder::new();
    let input = File::open(folder.write("lines", lines)).unwrap();
    run(node_lua().args(options).arg("-i").stdin(Stdio::from(input)))
}

#[test]
fn lines_are_run_and_their_values_printed() {
    let lines = "x = 2\n=x, nil, x * 2\nprint('printed')\nfor i = 1, 2 do\nprint(i)\nend\n\
                 return x\n=io.read()\nread by the line before\n";
    let done = feed(&[], lines).succeeded();
    let output = done.stdout.replace(">> ", "").replace("> ", "");
    let lines: Vec<&str> = output.lines().skip(2).filter(|line| !line.is_empty()).collect();
    assert_eq!(lines, ["2\tnil\t4", "printed", "1", "2", "2", "read by the line before"], "{done}");
    assert!(done.stdout.starts_with("node-lua ") && done.stdout.contains("\nJIT: ON"), "{done}");
}

#[test]
fn failures_are_told_and_end_nothing() {
    let lines = "error('told')\n$$\nerror({})\nprint = nil\n=1\nio.write('goes on\\n')\n";
    let done = feed(&[], lines).succeeded();
    assert!(done.stderr.starts_with("stdin:1: told\nstack traceback:\n"), "{done}");
    for part in ["stdin:1: unexpected symbol near '$'", "error calling 'print'", "\n(error object"]
    {
        assert!(done.stderr.contains(part), "{part}: {done}");
    }
    assert!(!done.stderr.contains("[node-lua]"), "{done}");
    assert!(done.stdout.contains("goes on\n"), "{done}");
}

/// What Debian's `luajit -i` writes.
#[test]
fn tracebacks_at_the_prompt_are_those_of_luajit() {
    let lines = "error(2)\n\
                 local function f() error('x') end f()\n\
                 x.y = 1\n\
                 foo()\n\
                 error({})\n\
                 error(nil)\n\
                 error(setmetatable({}, {__tostring = function() return 'TS' end}))\n\
                 return table.sort({2, 1}, function() error('cmp') end)\n\
                 local function r(n) if n == 0 then error('deep') end r(n - 1) return 1 end r(30)\n\
                 io.stderr:write(debug.traceback(), '\\n')\n";
    let done = feed(&[], lines).succeeded();
    let error = "\t[C]: in function 'error'\n";
    let end = "\tstdin:1: in main chunk\n\t[C]: at ADDR\n";
    let start = "stack traceback:\n";
    let r = "\tstdin:1: in function 'r'\n";
    let expected = [
        format!("stdin:1: 2\n{start}{error}{end}"),
        format!("stdin:1: x\n{start}{error}\tstdin:1: in function 'f'\n{end}"),
        format!("stdin:1: attempt to index global 'x' (a nil value)\n{start}{end}"),
        format!("stdin:1: attempt to call global 'foo' (a nil value)\n{start}{end}"),
        "(error object is not a string)\n".to_owned(),
        format!("TS\n{start}{error}{end}"),
        format!(
            "stdin:1: cmp\n{start}{error}\tstdin:1: in function <stdin:1>\n\
             \t[builtin#93]: at ADDR\n\t[C]: at ADDR\n"
        ),
        format!("stdin:1: deep\n{start}{error}{}\t...\n{}{end}", r.repeat(10), r.repeat(8)),
        format!("{start}{end}"),
    ];
    assert_eq!(without_addresses(&done.stderr), expected.concat(), "{done}");
}

#[test]
fn what_is_run_may_wait_and_prompts_may_be_set() {
    let lines = "_PROMPT = '<1>' _PROMPT2 = '<2>'\n\
                 co = coroutine.wrap(function() timer.sleep(0.01) return 'slept' end)\n\
                 =co()\nf(\n)\n";
    let done = feed(&["-e", "function f() timer.sleep(0.01) print('f') end"], lines).succeeded();
    assert!(done.stdout.contains("<1><1>slept\n<1><2>f\n<1>\n"), "{done}");
}

#[test]
fn a_script_that_fails_leaves_no_prompt() {
    let done = feed(&["-e", "error('fails')"], "print('never')\n");
    assert_eq!(done.code(), Some(1), "{done}");
    assert!(!done.stdout.contains("never"), "{done}");
}

/// A session whose input stays open.
struct Session {
    child: Child,
    input: File,
    output: Receiver<u8>,
    seen: String,
}

impl Session {
    fn start(command: &mut Command, input: File, output: impl Read + Send + 'static) -> Session {
        let child = command.spawn().unwrap();
        let (send, received) = mpsc::channel();
        std::thread::spawn(move || {
            for byte in BufReader::new(output).bytes().map_while(Result::ok) {
                if send.send(byte).is_err() {
                    break;
                }
            }
        });
        Session { child, input, output: received, seen: String::new() }
    }

    fn say(&mut self, text: &str) {
        self.input.write_all(text.as_bytes()).unwrap();
    }

    /// Waits until the process has printed this text, after what was waited for before.
    #[track_caller]
    fn expect(&mut self, text: &str) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(at) = self.seen.find(text) {
                self.seen.drain(..at + text.len());
                return;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            match self.output.recv_timeout(left) {
                Ok(byte) => self.seen.push(byte as char),
                Err(why) => panic!("no {text:?} ({why}) in {:?}", self.seen),
            }
        }
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

#[test]
fn other_coroutines_and_contexts_go_on_while_a_line_is_awaited() {
    let folder = Folder::new();
    folder.write("child.lua", "context.send(context.parent(), 'of a context') timer.sleep(3600)");
    let script = folder.write(
        "main.lua",
        "context.create('child.lua')
         context.recv(0, function(_, what) print('message', what) end)
         timer.timeout(0.01, function() print('timer', 'fires') end)",
    );
    let (input, write) = std::io::pipe().unwrap();
    let (read, output) = std::io::pipe().unwrap();
    let mut command = node_lua();
    // One worker could not wait for input and run the others.
    command.args(["--workers", "2", "-i"]).arg(script).stdin(input).stdout(output);
    let write = File::from(std::os::fd::OwnedFd::from(write));
    let mut session = Session::start(&mut command, write, read);
    session.expect("timer\tfires");
    session.say("=1 + 1\n");
    session.expect("2\n");
    session.say("context.exit(6)\n");
    assert_eq!(session.child.wait().unwrap().code(), Some(6));
}

/// Whatever the statement does, and wherever it waits; at the prompt the signal ends the process.
#[test]
fn the_signal_of_control_c_breaks_off_the_statement_that_runs() {
    let (input, write) = std::io::pipe().unwrap();
    let (read, output) = std::io::pipe().unwrap();
    let mut command = node_lua();
    command.arg("-i").stdin(input).stderr(output.try_clone().unwrap()).stdout(output);
    let write = File::from(std::os::fd::OwnedFd::from(write));
    let mut session = Session::start(&mut command, write, read);
    drop(command);
    let id = session.child.id().to_string();
    let interrupt = || {
        let sent = Command::new("kill").args(["-s", "INT", &id]).status();
        assert!(sent.unwrap().success());
    };
    session.say("timer.loop(0.001, 0.001, function() ticks = (ticks or 0) + 1 end)\n");
    session.say("local _, l = tcp.listen('127.0.0.1', 0) listener = l\n");
    session.say("local _, s = tcp.connect('127.0.0.1', tcp.local_port(listener)) sock = s\n");
    for statement in [
        "while true do end",
        "local x = 0 while true do x = x + 1 end",
        "table.sort({ 1, 2 }, function() while true do end end)",
        "coroutine.wrap(function() while true do end end)()",
        "debug.sethook(function() end, 'l') while true do local x end",
        "timer.sleep(1000)",
        "return timer.sleep(1000)",
        "return pcall(timer.sleep, 1000)",
        "coroutine.wrap(function() timer.sleep(1000) return 1 end)()",
        "context.recv(0)",
        "context.query(context.self(), 1)",
        "sock:read()",
        "assert(listener:accept()) listener:accept()",
    ] {
        session.say(&format!("print('begun', 1) {statement}\n"));
        session.expect("begun\t1");
        interrupt();
        session.expect("interrupted!");
    }
    for statement in ["while true do end", "timer.sleep(1000) return 1"] {
        session.say(&format!("=pcall(function() print('begun', 2) {statement} end)\n"));
        session.expect("begun\t2");
        interrupt();
        session.expect("false\tstdin:1: interrupted!");
    }
    session.say("context.on_signal('INT', function() print('heard', 1) end)\n");
    session.say("print('begun', 3) timer.sleep(0.1) print('slept', 1)\n");
    session.expect("begun\t3");
    interrupt();
    session.expect("heard\t1");
    session.expect("slept\t1");
    session.say("context.on_signal('INT', nil) print('forgotten', 1)\n");
    session.expect("forgotten\t1");
    session.expect("> ");
    interrupt();
    assert_eq!(session.child.wait().unwrap().code(), Some(130));
}

#[test]
fn a_terminal_without_a_script_is_asked_and_its_end_ends_the_process() {
    let terminal = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
    grantpt(&terminal).unwrap();
    unlockpt(&terminal).unwrap();
    let name = ptsname(&terminal, Vec::new()).unwrap();
    let open = || File::options().read(true).write(true).open(name.to_str().unwrap()).unwrap();
    let mut command = node_lua();
    command.stdin(open()).stdout(open()).stderr(open());
    let terminal = File::from(terminal);
    let output = terminal.try_clone().unwrap();
    let mut session = Session::start(&mut command, terminal, output);
    session.expect("> ");
    session.say("timer.loop(0.01, 3600, print, 'ticks')\n");
    session.expect("stdin:1: bad argument #4 to 'loop'");
    session.expect("> ");
    session.say("timer.loop(0.01, 3600, function() print('tick', 1) end)\n");
    session.expect("tick\t1");
    // Control-D.
    session.say("\u{4}");
    assert_eq!(session.child.wait().unwrap().code(), Some(0));
}

/// Only what ends too early goes on in the next line; a word too many is told at once.
#[test]
fn what_is_wrong_before_its_end_is_no_beginning() {
    let lines = "print(1) end\nreturn 1 1\nprint(\n2)\nx = [[a\nb]] print(x)\n";
    let done = feed(&[], lines).succeeded();
    let told = "stdin:1: '<eof>' expected near 'end'\nstdin:1: '<eof>' expected near '1'\n";
    assert_eq!(done.stderr, told, "{done}");
    let output = done.stdout.replace(">> ", "").replace("> ", "");
    assert!(output.ends_with("\n2\na\nb\n\n"), "{done}");
}
