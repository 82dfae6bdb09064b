//! Standard output: when what is printed is written, that no call of one context is torn by
//! another's, and who is told of what is lost.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};

use support::{Done, Folder, PATIENCE, Server, connect, node_lua, run};

/// The signal that ends who writes to a pipe that nobody reads.
const SIGPIPE: i32 = 13;

fn evaluate(code: &str) -> Done {
    run(node_lua().args(["-e", code]))
}

/// Runs code with a device that is full as standard output.
fn evaluate_full(code: &str) -> Done {
    let full = File::options().write(true).open("/dev/full").unwrap();
    let mut child = node_lua();
    let child = child.args(["-e", code]).stdout(full).stderr(Stdio::piped()).spawn().unwrap();
    let output = child.wait_with_output().unwrap();
    let stderr = String::from_utf8(output.stderr).unwrap();
    Done { stdout: String::new(), stderr, status: Some(output.status) }
}

/// What each write to standard output had, for code whose output is short.
fn writes(code: &str) -> Vec<String> {
    let (ours, theirs) = UnixDatagram::pair().unwrap();
    let mut command = node_lua();
    command.args(["-e", code]).stdout(OwnedFd::from(theirs)).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    drop(command);
    ours.set_read_timeout(Some(PATIENCE)).unwrap();
    let (mut found, mut bytes) = (Vec::new(), vec![0; 1 << 17]);
    loop {
        let length = ours.recv(&mut bytes).unwrap();
        let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
        if text.ends_with("the end\n") {
            break;
        }
        found.push(text);
    }
    assert!(child.wait().unwrap().success());
    found
}

const WRITERS: &str = r#"
local id, way = ...
local texts = { ("x"):rep(50), ("y"):rep(3000) }
local odd = setmetatable({}, { __tostring = function() return "odd" end })
for i = 1, 1500 do
  local text = texts[i % 60 == 0 and 2 or 1]
  if way == 1 then print("ctx", id, i, text, "end")
  elseif way == 2 then io.write("ctx\t", id, "\t", i, "\t", text, "\tend\n")
  elseif way == 3 then io.stdout:write("ctx\t", id, "\t", i, "\t", text, "\tend\n")
  elseif way == 4 then io.output():write("ctx\t", id, "\t", i, "\t", text, "\tend\n")
  else print("ctx", id, i, odd, "end") end
end
"#;

#[test]
fn calls_that_print_are_whole() {
    let folder = Folder::new();
    let child = folder.write("child.lua", WRITERS);
    let start = format!("for i = 1, 10 do context.create({child:?}, i, i % 5) end");
    let done = run(node_lua().args(["--workers", "4", "-e", &start])).succeeded();
    let mut next = [1; 11];
    for line in done.stdout.lines() {
        let parts: Vec<&str> = line.split('\t').collect();
        let is_whole = parts.len() == 5 && parts[0] == "ctx" && parts[4] == "end";
        assert!(is_whole, "a line is torn: {line}");
        let id: usize = parts[1].parse().unwrap();
        assert_eq!(parts[2], next[id].to_string(), "lines of one context come in order");
        next[id] += 1;
    }
    assert_eq!(next[1..], [1501; 10]);
}

#[test]
fn calls_that_write_errors_are_whole() {
    let folder = Folder::new();
    let child = folder.write(
        "child.lua",
        "local id = ... for i = 1, 300 do
            io.stderr:write('err ', id, ' ', i, ' end', '\\n') context.log('log', i)
        end
        pcall(io.stderr.write, io.stderr, 'before', '\\n', {})
        assert(io.stderr:write() and io.stderr:write('x', 1, '\\n'))",
    );
    let code = format!("for i = 1, 6 do context.create({child:?}, i) end");
    let done = run(node_lua().args(["--workers", "4", "-e", &code])).succeeded();
    let count = |wanted: &dyn Fn(&str) -> bool| done.stderr.lines().filter(|l| wanted(l)).count();
    let is_error = |line: &str| line.starts_with("err ") && line.ends_with(" end");
    assert_eq!(count(&is_error), 1800, "{done}");
    assert_eq!(count(&|line| line == "before"), 6, "{done}");
    assert_eq!(count(&|line| line == "x1"), 6, "{done}");
}

/// Longer ones than are collected, too.
#[test]
fn long_calls_that_write_errors_are_whole() {
    let folder = Folder::new();
    let child = folder.write(
        "child.lua",
        "local id, t = ..., {}
         for i = 1, 100 do t[i] = tostring(id):rep(2000) end
         t[101] = '\\n'
         for i = 1, 10 do assert(io.stderr:write(unpack(t))) context.log('log', i) end",
    );
    let code = format!("for i = 1, 4 do context.create({child:?}, i) end");
    for shell in ["exec \"$0\" \"$@\"", "exec \"$0\" \"$@\" >&2"] {
        let mut command = Command::new("sh");
        command.args(["-c", shell]).arg(node_lua().get_program());
        let done = run(command.args(["--workers", "4", "-e", &code])).succeeded();
        let is_whole = |line: &&str| {
            let first = line.as_bytes()[0];
            line.len() == 200_000 && line.bytes().all(|byte| byte == first)
        };
        assert_eq!(done.stderr.lines().filter(is_whole).count(), 40, "torn");
        assert_eq!(done.stderr.lines().filter(|line| line.contains("log")).count(), 40);
    }
}

#[test]
fn a_turn_is_written_in_one_piece_when_it_ends() {
    let found = writes(
        "for i = 1, 100 do print(i) io.write(i, '\\n') end timer.sleep(0.001) print('two')
        io.write('a part') timer.sleep(0.001) print() timer.sleep(0.001) print('the end')",
    );
    let first: String = (1..=100).map(|i| format!("{i}\n{i}\n")).collect();
    assert_eq!(found, [first.as_str(), "two\na part", "\n"]);
}

#[test]
fn a_line_of_a_server_shows_while_it_goes_on() {
    let mut server = Server::start(["-e", "print('ready') context.recv(0)"]);
    assert_eq!(server.line(), "ready");
    // As does a part of a line, and what C code has printed.
    let code = "require('ffi').cdef('int puts(const char *);') require('ffi').C.puts('from C')
        context.recv(0)";
    assert_eq!(Server::start(["-e", code]).line(), "from C");
}

#[test]
fn what_a_turn_has_printed_that_does_not_end_shows() {
    let mut server = Server::start(["-e", "print('here') while true do end"]);
    assert_eq!(server.line(), "here");
    let mut server = Server::start(["-e", "while true do print('again and again') end"]);
    assert_eq!(server.line(), "again and again");
    let code = "local ffi = require('ffi') ffi.cdef('unsigned sleep(unsigned);')
        print('before') ffi.C.sleep(1000)";
    assert_eq!(Server::start(["-e", code]).line(), "before");
}

/// Nobody reads: one context waits for that, and the others go on, log, and write errors.
#[test]
fn who_prints_waits_for_the_reader_alone() {
    let folder = Folder::new();
    folder.write("talker.lua", "while true do print(('x'):rep(1000)) end");
    let script = folder.write(
        "main.lua",
        "for i = 1, 3 do context.create('talker.lua') end
         -- Until a pipe is full, and longer.
         for i = 1, 20 do timer.sleep(0.02) end
         for i = 1, 5 do
           timer.sleep(0.001)
           context.log('log', i)
           io.stderr:write('error ', i, '\\n')
           context.run(error, 'failure ' .. i)
         end
         context.wait(context.create('ends.lua'))
         io.stderr:write('done\\n')",
    );
    folder.write("ends.lua", "context.log('in ends')");
    let mut command = node_lua();
    command.args(["--workers", "2"]).arg(script);
    let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stderr.take().unwrap()).lines();
    let (send, receive) = std::sync::mpsc::channel();
    std::thread::spawn(move || lines.map_while(Result::ok).try_for_each(|line| send.send(line)));
    let mut missing = vec!["log\t5", "error 5", "failure 5", "in ends", "done"];
    while !missing.is_empty()
        && let Ok(line) = receive.recv_timeout(PATIENCE)
    {
        missing.retain(|part| !line.contains(part));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(missing.is_empty(), "{missing:?}");
}

#[test]
fn a_prompt_shows_before_its_answer_is_read() {
    let code = "
        io.write('name? ') local name = io.read()
        io.write('number? ') local number = io.read('*n', '*l')
        io.write('letter? ') local letter = io.read(1) io.read(0) io.read()
        io.write('line? ') local line = io.lines()()
        io.write('and? ') local more = io.stdin:read('*a')
        print(name, number, letter, line, more)";
    let mut command = node_lua();
    command.args(["-e", code]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let (mut to, mut from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let dialog = [
        ("name? ", "Lua\n"),
        ("number? ", "12.5\n"),
        ("letter? ", "x\n"),
        ("line? ", "a line\n"),
        ("and? ", "the rest"),
    ];
    for (prompt, answer) in dialog {
        let mut found = vec![0; prompt.len()];
        from.read_exact(&mut found).unwrap();
        assert_eq!(String::from_utf8_lossy(&found), prompt);
        to.write_all(answer.as_bytes()).unwrap();
    }
    drop(to);
    let mut rest = String::new();
    from.read_to_string(&mut rest).unwrap();
    assert_eq!(rest, "Lua\t12.5\tx\ta line\tthe rest\n");
    assert!(child.wait().unwrap().success());
}

#[test]
fn what_is_lost_is_told() {
    let told = "nil\tNo space left on device\t28";
    let tell = "local function tell(...) io.stderr:write(table.concat({...}, '\\t', 1,
        select('#', ...) == 1 and 1 or 3), '\\n') end
        local function t(a, ...) tell(tostring(a), ...) end ";
    for (code, expected) in [
        ("print('x') t(io.stdout:flush())", told),
        ("io.write('x') t(io.flush())", told),
        // The end of the turn has tried before: flush tells of it, once.
        ("print('x') timer.sleep(0.001) t(io.stdout:flush()) t(io.stdout:flush())", "nil…true"),
        ("for i = 1, 20000 do print('xxxxxxxx') end t(io.flush())", told),
        ("t(io.write(('x'):rep(200000))) t(io.flush())", told),
        ("io.stdout:setvbuf('no') t(io.write('x'))", told),
        ("io.stdout:setvbuf('line') t(io.write('x')) t(io.write('y\\n'))", told),
        ("local f = io.open('/dev/full', 'w') f:write('x') t(f:close())", told),
        ("local f = io.open('/dev/full', 'w') f:write('x') t(f:flush())", told),
        ("io.output('/dev/full') io.write('x') t(io.flush())", told),
        // Compiled code too.
        ("for i = 1, 300 do io.write('x') a, b, c = io.flush() end t(a, b, c)", told),
    ] {
        let done = evaluate_full(&format!("{tell}{code}"));
        match expected.split_once('…') {
            Some((first, second)) => {
                let lines: Vec<&str> =
                    done.stderr.lines().filter(|line| !line.contains("WARN")).collect();
                assert!(lines[0].starts_with(first) && lines[1] == second, "{code}: {done}");
            }
            None => assert!(done.stderr.contains(expected), "{code}: {done}"),
        }
        assert_eq!(done.code(), Some(0), "{code}: {done}");
    }
}

#[test]
fn every_context_is_told_of_what_is_lost() {
    let folder = Folder::new();
    let child = folder.write(
        "child.lua",
        "print('x') context.recv(0) io.stderr:write(tostring((io.stdout:flush())), '\\n')",
    );
    let code = format!(
        "local a, b = context.create({child:?}), context.create({child:?})
        print('y') timer.sleep(0.01) context.send(a, 1) context.wait(a) context.send(b, 1)"
    );
    let done = evaluate_full(&code);
    assert_eq!(done.stderr.lines().filter(|line| *line == "nil").count(), 2, "{done}");
}

#[test]
fn what_is_lost_and_nobody_asked_for_is_logged_and_in_the_exit_status() {
    for code in ["print('x')", "print('x') timer.sleep(0.001) print('y')", "io.write('x')"] {
        let done = evaluate_full(code);
        assert_eq!(done.code(), Some(1), "{code}: {done}");
        let count = done.stderr.matches("standard output: No space left on device").count();
        assert_eq!(count, 1, "{code}: {done}");
    }
    // A status that the script has chosen stays.
    let done = evaluate_full("print('x') os.exit(7)");
    assert_eq!(done.code(), Some(7), "{done}");
    assert!(done.stderr.contains("standard output: No space left on device"), "{done}");
}

/// Starts a command whose standard output nobody reads.
fn without_reader(command: &mut Command) -> std::process::Child {
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    drop(child.stdout.take());
    child
}

#[test]
fn a_script_ends_with_its_reader() {
    for code in [
        "while true do print('x') end",
        "while true do io.write('x', 'y') end",
        "timer.loop(0.001, 0.001, function() print('x') end)",
        "while true do local p = io.popen('exit', 'w') p:write(('x'):rep(1e6)) p:close() end",
    ] {
        let status = without_reader(node_lua().args(["-e", code])).wait().unwrap();
        assert_eq!(status.signal(), Some(SIGPIPE), "{code}: {status}");
    }
    // Whoever starts it with the signal ignored has writes fail instead.
    let script = "trap '' PIPE; exec \"$0\" -e 'print(1) timer.sleep(0.001)
        io.write(2) local ok, why = io.flush() io.stderr:write(tostring(why), \"\\n\")'";
    let mut command = Command::new("sh");
    command.args(["-c", script, env!("CARGO_BIN_EXE_node-lua")]).stderr(Stdio::piped());
    let mut child = without_reader(&mut command);
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    assert!(child.wait().unwrap().success(), "{text}");
    assert!(text.lines().any(|line| line == "Broken pipe"), "{text}");
}

#[test]
fn a_server_outlives_its_reader() {
    let code = "local _, l = tcp.listen('127.0.0.1', 0) print(tcp.local_port(l))
        l:accept(function(_, s)
            local _, what = s:read()
            print(what) io.flush() timer.sleep(0.001) print(what)
            s:write('still here') s:close()
        end)";
    let mut command = node_lua();
    let mut child =
        command.args(["-e", code]).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(child.stdout.take().unwrap());
    let mut port = String::new();
    lines.read_line(&mut port).unwrap();
    drop(lines);
    for _ in 0..3 {
        let mut stream = connect(port.trim().parse().unwrap());
        stream.write_all(b"hello").unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        assert_eq!(answer, "still here");
    }
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("Broken pipe") {
        line.clear();
        assert!(log.read_line(&mut line).unwrap() > 0, "a word on it is in the log");
    }
    child.kill().unwrap();
    child.wait().unwrap();
    let mut rest = String::new();
    log.read_to_string(&mut rest).unwrap();
    assert!(!rest.contains("Broken pipe"), "told of once:\n{rest}");
}

#[test]
fn nothing_is_lost_however_a_context_ends() {
    let folder = Folder::new();
    let child = folder.write("child.lua", "local how = ... print('child') loadstring(how)()");
    for (how, status) in [
        ("os.exit(3)", 3),
        ("os.exit(3, true)", 3),
        ("os.exit(true)", 0),
        ("os.exit(true, true)", 0),
        ("os.exit(false)", 1),
        ("os.exit(256 + 4)", 4),
        ("os.exit(-1)", 255),
        ("os.exit(2.9)", 2),
        ("error('x')", 0),
        ("context.destroy(context.self()) while true do end", 0),
        ("context.destroy(nil)", 0),
        ("local t = {} while true do t[#t + 1] = {} end", 0),
        ("while true do end", 0),
        ("coroutine.yield()", 0),
        ("setmetatable({}, { __gc = 1 }) newproxy(true)", 0),
    ] {
        let start = format!("print('main') context.create({child:?}, {how:?})");
        let mut command = node_lua();
        command.args(["--memory-limit", "8M", "--turn-limit", "0.1", "-e", &start]);
        let done = run(&mut command);
        assert_eq!(
            (done.stdout.as_str(), done.code()),
            ("main\nchild\n", Some(status)),
            "{how}: {done}"
        );
    }
    let done = evaluate("getmetatable(newproxy(true)).__gc = function() print('collected') end");
    assert_eq!(done.succeeded().stdout, "collected\n");
}

#[test]
fn what_is_printed_comes_in_order() {
    let folder = Folder::new();
    let output = folder.path("output");
    let code = r#"
        local ffi = require "ffi"
        ffi.cdef "int puts(const char *); int printf(const char *, ...);"
        print("print 1") ffi.C.puts("puts") print("print 2") ffi.C.printf("printf\n")
        io.write("write ", 3, "\n") io.stdout:write("method\n")
        os.execute("echo execute") print("print 4")
        local p = io.popen("cat", "w") p:write("popen\n") p:close()
        print("print 5") io.stderr:write("error 1\n") print("print 6")
        io.stdout:flush() io.stderr:write("error 2\n")
        print((io.popen("echo inner"):read("*a")))
        io.output():write("output\n") print(#("x"):rep(3), "\0zero")
        print("last") error("the reason")"#;
    let file = File::create(&output).unwrap();
    let mut command = node_lua();
    command.args(["-e", code]).stdout(file.try_clone().unwrap()).stderr(file);
    assert_eq!(command.status().unwrap().code(), Some(1));
    let text = fs::read_to_string(output).unwrap();
    let expected = "print 1\nputs\nprint 2\nprintf\nwrite 3\nmethod\nexecute\nprint 4\npopen\n\
        print 5\nerror 1\nprint 6\nerror 2\ninner\n\noutput\n3\t\0zero\nlast\n";
    let rest = text.strip_prefix(expected).unwrap_or_else(|| panic!("{text}"));
    assert!(rest.contains("the reason"), "{text}");
}

#[test]
fn scripts_choose_how_their_own_output_is_collected() {
    let folder = Folder::new();
    let output = folder.path("output");
    let code = r#"
        local path = arg[1]
        local function size() local f = io.open(path) local n = f:seek("end") f:close() return n end
        local sizes = {}
        local function note() sizes[#sizes + 1] = size() end
        print("1") note()
        io.flush() note()
        assert(io.stdout:setvbuf("no"))
        print("2") note() io.write("3") note() io.stdout:write("4", "\n") note()
        assert(io.stdout:setvbuf("line"))
        io.write("5") note() io.write("6\n") note()
        assert(io.stdout:setvbuf("full", 1000))
        print("7") timer.sleep(0.001) note()
        assert(io.stdout:setvbuf("line")) note()
        sizes[#sizes + 1] = io.stdout:seek("cur")
        for _, wrong in ipairs({ "none", false }) do
            sizes[#sizes + 1] = tostring(pcall(io.stdout.setvbuf, io.stdout, wrong))
        end
        io.stderr:write(table.concat(sizes, " "))"#;
    let file = File::create(&output).unwrap();
    let mut command = node_lua();
    command.args(["-e", code, "-"]).arg(&output).stdout(file);
    let found = command.stderr(Stdio::piped()).output().unwrap();
    let sizes = String::from_utf8_lossy(&found.stderr);
    // A turn that the machine has kept waiting counts as a long one, and is written meanwhile.
    let sizes = sizes.replace(" 10 12 12 12 ", " 10 10 12 12 ");
    assert_eq!(sizes, "0 2 4 5 7 7 10 10 12 12 false false");
    assert_eq!(fs::read_to_string(output).unwrap(), "1\n2\n34\n56\n7\n");
    // What one context has chosen does not hold for the others.
    let child = folder.write("child.lua", "io.stdout:setvbuf('no')");
    let found = writes(&format!(
        "context.wait(context.create({child:?})) io.write('a') io.write('b') timer.sleep(0.001)
        print('the end')"
    ));
    assert_eq!(found, ["ab"]);
}

#[test]
fn functions_that_print_are_as_in_luajit() {
    let code = r#"
        local odd = function(f) return setmetatable({}, { __tostring = f }) end
        print(debug.getinfo(print).what, (tostring(print):gsub("%d+$", "")))
        print() print(nil, true, 1, 1.5, -0, 1e15, 2^53, 1/0, "x", odd(function() return "y" end))
        print(pcall(print, "a", odd(function() error("b", 0) end)))
        print(pcall(print, "a", odd(function() return 1 end)))
        print(pcall(print, "a", odd(function() return {} end)))
        print(pcall(print, odd(function() print("inner") return "outer" end)))
        print(pcall(print, odd(function() timer.sleep(0) return "z" end)))
        print(pcall(io.write, "a", {})) print(pcall(io.write, nil))
        print(pcall(io.stdout.write, io.stdout, "a", {})) print(pcall(io.stdout.write, {}, "a"))
        print(io.write("b", 1, 2.5, "\n")) print(io.stdout:write()) print(io.stdout:close())
        debug.setmetatable(0, { __tostring = function(n) return "number" end }) print(1, "1")
        debug.setmetatable(0, nil)
        tostring = function(x) return "<" .. type(x) .. ">" end print(1, "x", {})
        tostring = function() end print(pcall(print, 1)) tostring = nil print(pcall(print, 1))"#;
    let folder = Folder::new();
    let script = folder.write("main.lua", code);
    let done = run(node_lua().arg(script));
    assert!(done.stdout.contains(": attempt to yield across a C-call boundary"), "{done}");
    let expected = "C\tfunction: builtin#\n\n\
        nil\ttrue\t1\t1.5\t-0\t1e+15\t9.007199254741e+15\tinf\tx\ty\n\
        afalse\tb\na\t1\ntrue\n\
        afalse\t'tostring' must return a string to 'print'\ninner\nouter\ntrue\n";
    assert!(done.stdout.starts_with(expected), "{done}");
    let rest = "afalse\tbad argument #2 to '?' (string expected, got table)\n\
        false\tbad argument #1 to '?' (string expected, got nil)\n\
        afalse\tbad argument #3 to '?' (string expected, got table)\n\
        false\tbad argument #1 to '?' (FILE* expected, got table)\n\
        b12.5\ntrue\ntrue\nnil\tcannot close standard file\nnumber\t1\n\
        <number>\t<string>\t<table>\n";
    assert!(done.stdout.contains(rest), "{done}");
}

#[test]
fn numbers_are_printed_as_tostring_has_them() {
    let code = "local random, numbers = math.random, {}
        for _, n in ipairs { 0, -0, 0/0, 1/0, -1/0, 1e14, -1e14, 2^53, 5e-324 } do
            numbers[#numbers + 1] = n
        end
        for digits = 1, 17 do
            for _, n in ipairs { 10^digits - 1, 10^digits, 10^digits + 1, 10^digits / 7 } do
                numbers[#numbers + 1] = n numbers[#numbers + 1] = -n
            end
        end
        for i = 1, 2000 do
            numbers[#numbers + 1] = random(-2^31, 2^31 - 1) * random(1, 2^20)
            numbers[#numbers + 1] = random() * 10^random(-20, 20)
        end
        for _, n in ipairs(numbers) do
            print(n, n) io.write(tostring(n), '\\t', tostring(n), '\\n')
        end";
    let done = evaluate(code).succeeded();
    let lines: Vec<&str> = done.stdout.lines().collect();
    assert!(lines.len() > 8000, "{}", lines.len());
    for pair in lines.chunks(2) {
        assert_eq!(pair[0], pair[1]);
    }
}

#[test]
fn huge_texts_and_any_bytes_arrive() {
    let code = "local all = {} for i = 0, 255 do all[i + 1] = string.char(i) end
        all = table.concat(all) local long = all:rep(20000)
        print(long) io.write(long, long) io.stdout:write(long) print(all, all)";
    let output = node_lua().args(["-e", code]).output().unwrap();
    assert!(output.status.success());
    let all: Vec<u8> = (0..=255).collect();
    let long = all.repeat(20000);
    let expected = [&long, &b"\n"[..], &long, &long, &long, &all, b"\t", &all, b"\n"].concat();
    assert!(output.stdout == expected, "{} bytes of {}", output.stdout.len(), expected.len());
}

#[test]
fn a_script_that_reads_holds_up_nobody() {
    let folder = Folder::new();
    let child = folder.write("child.lua", "io.read()");
    let code = format!(
        "context.create({child:?}) timer.sleep(0.02)
        local f = io.open({:?}, 'w') f:write('found')
        print(io.popen('cat ' .. {:?}):read('*a')) os.exit(5)",
        folder.path("file"),
        folder.path("file"),
    );
    let mut command = node_lua();
    let done = run(command.args(["-e", &code]).stdin(Stdio::piped()));
    assert_eq!((done.stdout.as_str(), done.code()), ("found\n", Some(5)), "{done}");
}

#[test]
fn a_simulation_prints_the_same_each_time() {
    let folder = Folder::new();
    let child = folder.write("child.lua", "for i = 1, 20 do print(..., i) timer.sleep(0.1) end");
    let code = format!("for i = 1, 5 do context.create({child:?}, i) end");
    let output = || {
        let done = run(node_lua().args(["--simulate", "7", "-e", &code])).succeeded();
        assert_eq!(done.stdout.lines().count(), 100);
        done.stdout
    };
    assert_eq!(output(), output());
}
