//! Readers that are slow or do not read at all, input that does not come, and standard streams that
//! do not block: nothing is lost, and the process ends when it is told to.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io::{PipeReader, PipeWriter, Read, Write};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;

use rustix::io::{ioctl_fionbio, ioctl_fionread};
use support::{Folder, PATIENCE, node_lua};

/// What a pipe takes, nearly.
const PIPE_BYTES: u64 = 60_000;

/// Waits until somebody who writes to a pipe has to wait.
fn until_full(reader: &PipeReader) {
    while ioctl_fionread(reader).unwrap() < PIPE_BYTES {
        std::thread::yield_now();
    }
}

/// A pipe whose end to write to does not block.
fn pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    ioctl_fionbio(&writer, true).unwrap();
    (reader, writer)
}

/// Runs a command whose outputs do not block, and are read once they are full; its status, and all
/// that it has written.
fn read_late(mut command: Command) -> (ExitStatus, String) {
    let (mut reader, writer) = pipe();
    command.stderr(writer.try_clone().unwrap()).stdout(writer);
    let mut child = command.spawn().unwrap();
    drop(command);
    until_full(&reader);
    let mut text = String::new();
    reader.read_to_string(&mut text).unwrap();
    (child.wait().unwrap(), text)
}

/// Waits for the end of a process, but not for ever; its status and what it has told on standard
/// error.
fn finish(mut child: Child) -> (Option<i32>, String) {
    let mut stderr = child.stderr.take().unwrap();
    let (send, receive) = mpsc::channel();
    std::thread::spawn(move || {
        let mut text = String::new();
        stderr.read_to_string(&mut text).unwrap();
        let _ = send.send(text);
    });
    let text = receive.recv_timeout(PATIENCE);
    if text.is_err() {
        child.kill().unwrap();
    }
    (child.wait().unwrap().code(), text.unwrap())
}

#[test]
fn an_output_that_does_not_block_loses_nothing() {
    let count = 60_000;
    for (statement, line) in [
        ("print('line', i)", "line\t"),
        ("io.write('line ', i, '\\n')", "line "),
        ("io.stdout:write('line ' .. i .. '\\n')", "line "),
        ("io.stderr:write('line ', i, '\\n')", "line "),
        ("context.log('line', i)", "context 1: line\t"),
        // Through the C library's stream, since C code may print too.
        ("local _ = i == 1 and ffi.C.getpid() print('line', i)", "line\t"),
    ] {
        let code = format!(
            "ffi = require 'ffi' ffi.cdef 'int getpid(void);'
            for i = 1, {count} do {statement} end"
        );
        let mut command = node_lua();
        command.env("RUST_LOG", "info").args(["-e", &code]);
        let (status, text) = read_late(command);
        assert_eq!(status.code(), Some(0), "{statement}");
        let mut number = 0;
        for found in text.lines() {
            number += 1;
            let is_right = found.ends_with(&format!("{line}{number}"));
            assert!(is_right, "{statement}: line {number} is {found}");
        }
        assert_eq!(number, count, "{statement}");
    }
}

#[test]
fn large_pieces_to_an_output_that_does_not_block_arrive_whole() {
    for stream in ["stdout", "stderr"] {
        let code = format!("assert(io.{stream}:write(('x'):rep(3e6), ('y'):rep(3e6), '.'))");
        let mut command = node_lua();
        command.args(["-e", &code]);
        let (status, text) = read_late(command);
        assert!(status.success());
        let all = format!("{}{}.", "x".repeat(3_000_000), "y".repeat(3_000_000));
        assert!(text == all, "{stream}: {} bytes", text.len());
    }
}

fn signal(child: &Child, name: &str) {
    let number = child.id().to_string();
    assert!(Command::new("kill").args(["-s", name, &number]).status().unwrap().success());
}

/// Scripts that wait in functions in C, after they have printed a line.
#[test]
fn a_signal_ends_a_call_that_waits() {
    for (code, name, status) in [
        ("print(io.read())", "INT", 130),
        ("print(io.read('*a'))", "TERM", 143),
        ("print(io.read('*n'))", "TERM", 143),
        ("for line in io.lines() do end", "INT", 130),
        ("while true do pcall(io.read) end", "INT", 130),
        ("os.execute('exec cat')", "TERM", 143),
        ("local p = io.popen('exec cat') p:read()", "TERM", 143),
        ("local p = io.popen('exec cat') p:close()", "INT", 130),
        ("local p = io.popen('read x', 'w') p:write('\\0', ('x'):rep(1e6))", "TERM", 143),
        ("ffi.cdef 'int getchar(void);' ffi.C.getchar()", "INT", 130),
    ] {
        let code = format!("ffi = require 'ffi' io.stdout:setvbuf('no') print('up') {code}");
        let mut command = node_lua();
        command.args(["-e", &code]).stdin(Stdio::piped());
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        let input = child.stdin.take();
        child.stdout.as_mut().unwrap().read_exact(&mut [0; 3]).unwrap();
        signal(&child, name);
        let found = child.wait().unwrap().code();
        // What a child of the script's holds ends with its input.
        drop(input);
        let mut stderr = String::new();
        child.stderr.take().unwrap().read_to_string(&mut stderr).unwrap();
        assert_eq!(found, Some(status), "{code}: {stderr}");
        assert!(!stderr.contains("still busy"), "{code}: {stderr}");
    }
}

const TALKER: &str = "while true do print(('x'):rep(100)) end";

#[test]
fn a_signal_ends_a_process_that_nobody_reads_from() {
    for code in [TALKER, "io.stderr:write(('x'):rep(1e6))"] {
        let (reader, writer) = std::io::pipe().unwrap();
        let mut command = node_lua();
        command.args(["-e", code]);
        let mut child = command.stderr(writer.try_clone().unwrap()).stdout(writer).spawn().unwrap();
        drop(command);
        until_full(&reader);
        signal(&child, "INT");
        assert_eq!(child.wait().unwrap().code(), Some(130), "{code}");
    }
}

#[test]
fn exit_does_not_wait_for_a_context_that_nobody_reads_from() {
    let folder = Folder::new();
    folder.write("talker.lua", TALKER);
    let script = folder
        .write("main.lua", "context.create('talker.lua') io.read() timer.sleep(0.001) os.exit(3)");
    let (reader, writer) = std::io::pipe().unwrap();
    let mut command = node_lua();
    command.arg(script).stdin(Stdio::piped()).stdout(writer).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    drop(command);
    until_full(&reader);
    child.stdin.take().unwrap().write_all(b"go\n").unwrap();
    let (status, stderr) = finish(child);
    assert_eq!((status, stderr.as_str()), (Some(3), ""));
}

/// A line, a number of bytes, or all: they wait, as where a read does.
#[test]
fn input_that_does_not_block_is_read_as_it_comes() {
    for (code, output) in [
        ("print(io.read(), io.read())", "12345\t67\n"),
        ("print(io.read(7), io.read())", "12345\n6\t7\n"),
        ("print(#io.read('*a'))", "9\n"),
        ("for line in io.lines() do print(line) end", "12345\n67\n"),
        ("print(io.read(0), #io.read('*a'))", "\t9\n"),
    ] {
        let (reader, mut writer) = std::io::pipe().unwrap();
        ioctl_fionbio(&reader, true).unwrap();
        let mut command = node_lua();
        command.args(["-e", code]).stdin(reader.try_clone().unwrap());
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        drop(command);
        for part in ["12", "345\n6", "7\n"] {
            writer.write_all(part.as_bytes()).unwrap();
            while ioctl_fionread(&reader).unwrap() > 0 {
                std::thread::yield_now();
            }
        }
        drop(writer);
        let done = child.wait_with_output().unwrap();
        assert_eq!(String::from_utf8_lossy(&done.stdout), output, "{code}: {done:?}");
    }
}

/// One writes what nobody reads, the others wait for the right to write, or for input.
#[test]
fn a_context_that_nobody_reads_from_can_be_destroyed() {
    let errors = "while true do io.stderr:write(('x'):rep(100)) end";
    let long_errors = "while true do io.stderr:write(('x'):rep(1e5)) end";
    // Once C may print, under the C library's lock.
    let beside_c = format!(
        "require('ffi').cdef('int puts(const char *)')
        local puts = require('ffi').C.puts {TALKER}"
    );
    for (talker, output) in
        [(TALKER, "stderr"), (&beside_c, "stderr"), (errors, "stdout"), (long_errors, "stdout")]
    {
        let folder = Folder::new();
        folder.write("talker.lua", talker);
        folder.write("reader.lua", "io.read()");
        let (go, script) = (
            folder.path("go"),
            "local ids = {}
            for _, name in ipairs { 'talker', 'talker', 'talker', 'reader' } do
                ids[#ids + 1] = context.create(name .. '.lua')
            end
            repeat timer.sleep(0.001) until io.open(arg[2])
            for _, id in ipairs(ids) do
                context.destroy(id)
                context.wait(id)
            end
            io[arg[1]]:write('all have ended'):flush()
            timer.sleep(1e6)",
        );
        let (reader, writer) = std::io::pipe().unwrap();
        let (mut told, tell) = std::io::pipe().unwrap();
        let mut command = node_lua();
        command.arg(folder.write("main.lua", script)).arg(output).arg(&go).stdin(Stdio::piped());
        match output {
            "stderr" => command.stdout(writer).stderr(tell),
            _ => command.stdout(tell).stderr(writer),
        };
        let mut child = command.spawn().unwrap();
        drop(command);
        until_full(&reader);
        std::fs::write(go, "").unwrap();
        let (send, receive) = mpsc::channel();
        std::thread::spawn(move || {
            let mut text = [0; "all have ended".len()];
            let _ = send.send(told.read_exact(&mut text).map(|()| text));
        });
        let text = receive.recv_timeout(PATIENCE);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(&text.unwrap().unwrap(), b"all have ended", "{talker}");
    }
}

/// From what was opened for writing nothing can be read, and the other way round, which is told at
/// once: whoever has the other end could not send anything.
#[test]
fn descriptors_of_the_other_direction_are_not_waited_for() {
    for (stream, code, expected) in [
        ("output", "io.stdout:read()", "nil\n"),
        ("output", "io.stdout:read('*a')", "nil\n"),
        ("output", "io.stdout:read('*n')", "nil\n"),
        ("output", "io.stdout:read(0)", "nil\n"),
        ("output", "select(2, pcall(io.stdout:lines()))", "Bad file descriptor\n"),
        ("output", "select(2, io.popen('exec cat', 'w'):read())", "Bad file descriptor\n"),
        ("input", "select(2, io.read())", "Bad file descriptor\n"),
        ("turned output", "print(1) or select(2, io.stdout:flush())", "Bad file descriptor\n"),
    ] {
        // Both ends stay open here.
        let (reader, writer) = std::io::pipe().unwrap();
        let mut command = node_lua();
        let code = format!("io.stderr:write(tostring({code}), '\\n') os.exit(7)");
        command.env("RUST_LOG", "error").args(["-e", &code]).stderr(Stdio::piped());
        match stream {
            "output" => command.stdout(writer.try_clone().unwrap()),
            "input" => command.stdin(writer.try_clone().unwrap()),
            _ => command.stdout(reader.try_clone().unwrap()),
        };
        let child = command.spawn().unwrap();
        assert_eq!(finish(child), (Some(7), expected.to_owned()), "{code}");
    }
}

/// Of a line, a number or a piece something has come: who waits for the rest can be ended, and
/// nothing of what two contexts read is torn.
#[test]
fn who_waits_for_the_rest_of_what_it_reads_can_be_destroyed() {
    for how in ["*l", "*n", "*a", "10"] {
        let folder = Folder::new();
        folder.write("reader.lua", "local how = ... io.read(tonumber(how) or how)");
        let go = folder.path("go");
        let script = "local id = context.create('reader.lua', arg[1])
            repeat timer.sleep(0.001) until io.open(arg[2])
            context.destroy(id)
            context.wait(id)
            context.exit(7)";
        let (reader, mut writer) = std::io::pipe().unwrap();
        let mut command = node_lua();
        command.arg(folder.write("main.lua", script)).arg(how).arg(&go);
        command.stdin(reader.try_clone().unwrap()).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        writer.write_all(b"12").unwrap();
        while ioctl_fionread(&reader).unwrap() > 0 {
            std::thread::yield_now();
        }
        std::fs::write(go, "").unwrap();
        assert_eq!(finish(child), (Some(7), String::new()), "{how}");
    }
}

#[test]
fn lines_that_two_contexts_read_are_whole() {
    let folder = Folder::new();
    folder
        .write("reader.lua", "for line in io.lines() do context.send(context.parent(), line) end");
    let script = "for _ = 1, 2 do context.create('reader.lua') end
        for _ = 1, 4 do print((select(2, context.recv(0)))) end";
    let (reader, mut writer) = std::io::pipe().unwrap();
    let mut command = node_lua();
    command.arg(folder.write("main.lua", script)).stdin(reader.try_clone().unwrap());
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(command);
    for part in ["ab", "c\nd", "e", "f\ng\nh", "i\n"] {
        writer.write_all(part.as_bytes()).unwrap();
        while ioctl_fionread(&reader).unwrap() > 0 {
            std::thread::yield_now();
        }
    }
    drop(writer);
    let done = child.wait_with_output().unwrap();
    let output = String::from_utf8_lossy(&done.stdout);
    let mut lines: Vec<_> = output.lines().collect();
    lines.sort_unstable();
    assert_eq!(lines, ["abc", "def", "g", "hi"], "{done:?}");
}
