//! Standard output and standard error as one pipe or file, pieces that other processes write in
//! between, and standard streams that are closed when the process starts.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs::{self, File};
use std::io::Read;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Stdio};

use support::{Folder, PATIENCE, node_lua, run};

/// Some contexts print, others log, or write errors; every line says who it is from, and ends.
const WRITERS: &str = r#"
local id, kind = ...
if not id then
    for i = 1, 3 do context.create(arg[0], i, "print") end
    for i = 4, 5 do context.create(arg[0], i, "log") end
elseif kind == "print" then
    for i = 1, 2000 do
        print("out", id, i, ("x"):rep(i % 97), "end")
        io.write("out\t", id, "\t", i, "\t", ("y"):rep(i % 301), "\tend\n")
    end
else
    for i = 1, 400 do
        context.log("log", id, i, "x", "end")
        if i % 5 == 0 then io.stderr:write("err\t", id, "\t", i, "\tx\tend\n") end
        if i % 3 == 0 then timer.sleep(0.0001) end
    end
end
"#;

fn check_lines(text: &str) {
    for line in text.lines() {
        let line = line.split_once(": log").map_or(line, |(_, rest)| rest);
        let parts: Vec<&str> = line.split('\t').collect();
        let is_whole = parts.len() == 5 && parts[4] == "end";
        assert!(is_whole, "a line is torn: {line}");
    }
    assert_eq!(text.lines().count(), 3 * 4000 + 2 * 480);
}

/// Standard output and error are what `sink` is.
fn writers(folder: &Folder, sink: OwnedFd) -> Command {
    let script = folder.write("main.lua", WRITERS);
    let mut command = node_lua();
    command.env("RUST_LOG", "info").args(["--workers", "4"]).arg(script);
    command.stderr(sink.try_clone().unwrap()).stdout(sink);
    command
}

#[test]
fn lines_in_one_pipe_are_whole_whoever_writes_them() {
    let folder = Folder::new();
    let (mut ours, theirs) = std::io::pipe().unwrap();
    let mut command = writers(&folder, theirs.into());
    let mut child = command.spawn().unwrap();
    drop(command);
    let mut text = String::new();
    ours.read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success());
    check_lines(&text);
}

#[test]
fn lines_in_one_file_are_whole_whoever_writes_them() {
    let folder = Folder::new();
    let path = folder.write("both", "");
    let file = File::options().append(true).open(&path).unwrap();
    assert!(writers(&folder, file.into()).status().unwrap().success());
    check_lines(&fs::read_to_string(path).unwrap());
}

/// Another process that writes to the same pipe does so between calls, too.
#[test]
fn what_is_written_when_much_is_collected_ends_with_a_call() {
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let code = "for i = 1, 3000 do
            print('line', i, ('x'):rep(i % 777), '.')
            io.write('line\t', i, '\t', ('y'):rep(i % 555), '\t', '.', '\\n')
        end
        print(('z'):rep(5000) .. '.')
        local odd = setmetatable({}, { __tostring = function() return 'odd.' end })
        for _ = 1, 1000 do print(odd) end
        timer.sleep(0.001) print('the end')";
    let mut command = node_lua();
    command.args(["-e", code]).stdout(OwnedFd::from(theirs));
    let mut child = command.spawn().unwrap();
    drop(command);
    ours.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut pieces, mut bytes) = (0, vec![0; 1 << 17]);
    loop {
        let length = ours.recv(&mut bytes).unwrap();
        let piece = &bytes[..length];
        if piece.ends_with(b"the end\n") {
            break;
        }
        assert!(piece.ends_with(b".\n"), "{:?}", String::from_utf8_lossy(&piece[length - 20..]));
        pieces += 1;
    }
    assert!(pieces > 50, "{pieces}");
    assert!(child.wait().unwrap().success());
}

/// Runs code with some of the standard streams closed, and returns what it has put into a file.
fn run_closed(redirections: &str, code: &str) -> (String, Option<i32>) {
    let folder = Folder::new();
    let report = folder.write("report", "");
    let shell = format!("exec \"$@\" {redirections}");
    let prelude = "local report = io.open(os.getenv('REPORT'), 'w')
        local function tell(...) report:write(table.concat({ ... }, ' '), '\\n') end
        local function all(...)
            local words = { n = select('#', ...), ... }
            for i = 1, words.n do words[i] = tostring(words[i]):gsub('%(0x%x+%)', '') end
            return table.concat(words, ' ')
        end ";
    let mut command = Command::new("sh");
    command.args(["-c", &shell, "sh"]).arg(node_lua().get_program()).arg("-e");
    command.arg([prelude, code, " report:close()"].concat()).env("REPORT", &report);
    command.stdin(Stdio::null()).env_remove("RUST_LOG");
    let status = run(&mut command).status.unwrap().code();
    (fs::read_to_string(&report).unwrap(), status)
}

#[test]
fn writing_to_an_output_that_is_closed_fails_as_in_luajit() {
    let code = "print('lost') tell(all(io.flush())) tell(all(io.flush()))
        io.write('lost') tell(all(io.stdout:flush()))
        print('lost') tell(all(io.stdout:setvbuf('no')))
        tell(all(io.write('lost')))
        -- Nothing else has got its number, nor gets what is printed.
        local _, listener = tcp.listen('127.0.0.1', 0)
        local _, client = tcp.connect('127.0.0.1', tcp.local_port(listener))
        local _, server = listener:accept()
        print('lost') io.write('lost') client:write('kept', true)
        tell(select(2, server:read()):tostring())
        listener:close()";
    let bad = "nil Bad file descriptor 9";
    let expected = format!("{bad}\ntrue\n{bad}\n{bad}\n{bad}\nkept\n");
    for closed in [">&-", ">&- 2>&-", "<&- >&- 2>&-"] {
        assert_eq!(run_closed(closed, code), (expected.clone(), Some(0)), "{closed}");
    }
    // Who never asks is told by the log alone, as whoever closed it wants no output.
    assert_eq!(run_closed(">&-", "print('lost')"), (String::new(), Some(0)));
}

#[test]
fn other_closed_streams_fail_as_in_luajit() {
    let bad = "nil Bad file descriptor 9";
    let code = "tell(all(io.read())) tell(all(io.read('*a'))) tell(all(io.stdin:read(1)))";
    assert_eq!(run_closed("<&-", code), (format!("{bad}\n{bad}\n{bad}\n"), Some(0)));
    let mut command = Command::new("sh");
    command.args(["-c", "exec \"$0\" - <&-"]).arg(node_lua().get_program());
    let done = run(&mut command);
    assert_eq!(done.code(), Some(1), "{done}");
    assert!(done.stderr.contains("standard input: Bad file descriptor"), "{done}");
    let code = "tell(all(io.stderr:write('lost'))) context.log('lost') print('kept')
        tell(all(io.flush()))";
    assert_eq!(run_closed("2>&-", code), (format!("{bad}\ntrue\n"), Some(0)));
    // A program that is executed finds them closed, or as good as that.
    let code = "tell(os.execute('echo lost 2>/dev/null') ~= 0 and 'failed' or 'done')";
    assert_eq!(run_closed(">&-", code), ("failed\n".to_owned(), Some(0)));
}
