//! Child processes: what they inherit, and that they hold nobody up.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::process::{Command, Stdio};

use support::{Folder, node_lua, run};

/// Everything that has a descriptor, and then children made in each way.
const DESCRIPTORS: &str = r##"
local folder = ...
local ffi = require "ffi"
ffi.cdef [[
  int fork(void); int execl(const char *, const char *, ...); int waitpid(int, int *, int);
  void _exit(int);
]]
local kept = {}
local function keep(...) for i = 1, select("#", ...) do kept[#kept + 1] = (select(i, ...)) end end
local _, l = tcp.listen("127.0.0.1", 0)
local _, c = tcp.connect("127.0.0.1", tcp.local_port(l))
local _, s = l:accept()
local _, u = tcp.listens(folder .. "/socket")
local _, uc = tcp.connects(folder .. "/socket")
local _, us = u:accept()
keep(l, c, s, u, uc, us, io.tmpfile(), io.popen("cat", "w"), io.popen("exit"))
for _, mode in ipairs { "w", "r", "a", "r+", "w+", "rb", "r+b", "wb" } do
  keep(assert(io.open(folder .. "/file", mode)))
end
keep(io.lines(folder .. "/file"))
io.output(folder .. "/output") io.input(folder .. "/file")
context.log("a line")
local list = "for f in /proc/self/fd/*; do echo ${f##*/}; done"
local function tell(text) return (text:gsub("%s+", " ")) end
print(tell(io.popen(list):read("*a")))
os.execute(list .. " > " .. folder .. "/list")
print(tell(io.open(folder .. "/list"):read("*a")))
local id = ffi.C.fork()
if id == 0 then
  ffi.C.execl("/bin/sh", "sh", "-c", list .. " > " .. folder .. "/list", ffi.cast("char *", nil))
  ffi.C._exit(1)
end
ffi.C.waitpid(id, nil, 0)
print(tell(io.open(folder .. "/list"):read("*a")))
os.exit(0)
"##;

/// What a shell prints that the test starts: it has no more than what the test itself was given.
fn shell(command: &str) -> String {
    let mut shell = Command::new("sh");
    let shell = shell.args(["-c", command]).stdin(Stdio::null()).stderr(Stdio::null());
    let output = shell.output().unwrap();
    String::from_utf8(output.stdout).unwrap().split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn children_have_three_descriptors() {
    let folder = Folder::new();
    let script = folder.write("main.lua", DESCRIPTORS);
    let done = run(node_lua().arg(script).arg(folder.path(""))).succeeded();
    let list = "for f in /proc/self/fd/*; do echo ${f##*/}; done";
    let file = folder.path("shell").display().to_string();
    // A shell has some for what it does with the others.
    let direct = shell(list);
    let redirected = shell(&format!("sh -c '{list} > {file}'; cat {file}"));
    let lines: Vec<&str> = done.stdout.lines().map(str::trim).collect();
    assert_eq!(lines, [direct, redirected.clone(), redirected], "{done}");
}

#[test]
fn children_start_with_default_signals() {
    let code = r#"
        local ffi = require "ffi"
        ffi.cdef [[int fork(void); int execl(const char *, const char *, ...);
          int waitpid(int, int *, int);]]
        local show = "grep -E 'Sig(Blk|Ign)' /proc/self/status"
        local function tell(text) return (text:gsub("%s+", " ")) end
        timer.sleep(0.001)
        print(tell(io.popen(show):read("*a")))
        os.execute(show)
        io.flush()
        local id = ffi.C.fork()
        if id == 0 then ffi.C.execl("/bin/sh", "sh", "-c", show, ffi.cast("char *", nil)) end
        ffi.C.waitpid(id, nil, 0)
        print(os.execute("kill -PIPE $$"), os.execute("exit 3"), os.execute() ~= 0)
        print(os.execute("no-such-command-at-all 2>/dev/null"))"#;
    let done = run(node_lua().args(["-e", code])).succeeded();
    let expected = shell("grep -E 'Sig(Blk|Ign)' /proc/self/status");
    let found = done.stdout.split_whitespace().collect::<Vec<_>>().join(" ");
    let (signals, rest) = found.split_at(found.rfind("13").unwrap());
    // The C library's own two signals, 32 and 33, are as they are. SIGINT is ignored where a shell
    // runs the tests in the background; a process that handles it passes on the default, as luajit.
    let plain = |text: &str| -> Vec<u64> {
        let words = text.split(' ').filter_map(|word| u64::from_str_radix(word, 16).ok());
        words.map(|mask| mask & !0x1_8000_0002).collect()
    };
    assert_eq!(plain(signals), plain(&expected).repeat(3), "{done}");
    assert_eq!(plain(&expected).len(), 2);
    assert_eq!(rest, "13 768 true 32512");
}

#[test]
fn a_peer_sees_a_close_while_a_child_runs() {
    let code = "local _, l = tcp.listen('127.0.0.1', 0)
        local _, c = tcp.connect('127.0.0.1', tcp.local_port(l))
        local _, s = l:accept()
        local p = io.popen('cat', 'w')
        s:close()
        print(c:read(30))
        local port = tcp.local_port(l)
        l:close()
        print(tcp.listen('127.0.0.1', port))
        os.exit(0)";
    let done = run(node_lua().args(["-e", code])).succeeded();
    assert!(done.stdout.starts_with("false\t1\ntrue\t"), "{done}");
}

#[test]
fn a_child_that_c_code_makes_writes_nothing_twice() {
    let code = r#"
        local ffi = require "ffi"
        ffi.cdef "int fork(void); int waitpid(int, int *, int); void exit(int);"
        print("once")
        local id = ffi.C.fork()
        if id == 0 then print("in the child") io.flush() ffi.C.exit(0) end
        ffi.C.waitpid(id, nil, 0)
        print("in the parent")"#;
    let done = run(node_lua().args(["-e", code]).stdin(Stdio::null())).succeeded();
    assert_eq!(done.stdout, "once\nin the child\nin the parent\n");
}

#[test]
fn a_child_of_a_long_turn_has_usual_priority() {
    let code = "local clock = os.clock
        local function busy() local t = clock() while clock() - t < 0.1 do end end
        busy() os.execute('nice') busy() print(io.popen('nice'):read('*a'))
        busy() local p = io.popen('nice 1>&2', 'w') print(p:close())
        print(io.popen('x', 'no such mode'))";
    let done = run(node_lua().args(["-e", code])).succeeded();
    let usual = shell("nice");
    let refused = "nil\tx: Invalid argument\t22\n";
    assert_eq!(done.stdout, format!("{usual}\n{usual}\n\ntrue\n{refused}"), "{done}");
    assert_eq!(done.stderr, format!("{usual}\n"));
}

#[test]
fn children_may_open_as_much_as_the_process_could_at_its_start() {
    let code = r##"
        local ffi = require "ffi"
        ffi.cdef [[int fork(void); int execl(const char *, const char *, ...);
          int waitpid(int, int *, int);]]
        print(io.popen("ulimit -Sn"):read())
        os.execute("ulimit -Sn")
        local id = ffi.C.fork()
        if id == 0 then
            ffi.C.execl("/bin/sh", "sh", "-c", "ulimit -Sn", ffi.cast("char *", nil))
        end
        ffi.C.waitpid(id, nil, 0)
        for _, command in ipairs { "", "exit 3", "(", "no-such-command", "#", "a=1\nexit $a" } do
            print(os.execute(command))
        end"##;
    let script = "ulimit -Sn 321; exec \"$0\" -e \"$1\"";
    let mut command = Command::new("sh");
    let program = env!("CARGO_BIN_EXE_node-lua");
    let done = run(command.args(["-c", script, program, code]).stdin(Stdio::null()));
    assert_eq!(done.stdout, "321\n321\n321\n0\n768\n512\n32512\n0\n256\n", "{done}");
}

/// Runs a script with `fork()`, and `join(id)`, which returns the exit status, or the signal and
/// 1,000, of a child.
fn run_forking(script: &str) -> support::Done {
    const START: &str = "local ffi = require 'ffi'
        ffi.cdef [[int fork(void); int waitpid(int, int *, int); int kill(int, int);
                   int pause(void);]]
        local fork = ffi.C.fork
        local function join(id)
          local status = ffi.new('int[1]')
          ffi.C.waitpid(id, status, 0)
          local value = status[0]
          return value % 128 == 0 and value / 256 or 1000 + value % 128
        end ";
    let code = format!("{START}{script}");
    run(node_lua().args(["-e", &code]).stdin(Stdio::null()))
}

/// None of the runtime's threads is there, the log's neither.
#[test]
fn a_forked_child_ends_with_what_runs_in_it() {
    let done = run_forking(
        "local function try(f)
           local id = fork()
           if id == 0 then return f() end
           print(join(id))
         end
         -- In the child each of these leaves the function that has called it, and then the turn.
         local function all()
           local kinds = {
             function() end,
             function() error('fails', 0) end,
             function() context.exit(3) end,
             function() os.exit(4) end,
             function() context.log('logged') error() end,
             function() print('printed') end,
             function() os.execute('exit 1') print(io.popen('echo of its child'):read()) end,
           }
           for i = 1, #kinds do
             local id = fork()
             if id == 0 then return kinds[i]() end
             print(i, join(id))
           end
           return true
         end
         if not all() then return end
         timer.timeout(0, function()
           if not all() then return end
           context.send(context.self(), 1)
           print('got', (select(2, context.recv(0))))
         end)",
    )
    .succeeded();
    let each = "1\t0\n2\t1\n3\t3\n4\t4\n5\t1\nprinted\n6\t0\nof its child\n7\t0\n";
    assert_eq!(done.stdout, format!("{each}{each}got\t1\n"), "{done}");
    assert_eq!(done.stderr.matches("node-lua: fails\n").count(), 2, "{done}");
    assert_eq!(done.stderr.matches("INFO  script] context 1: logged\n").count(), 2, "{done}");
}

#[test]
fn calls_that_wait_raise_in_a_forked_child() {
    let done = run_forking(
        "local _, l = tcp.listen('127.0.0.1', 0)
         local me = context.self()
         local calls = {
           { timer.sleep, 0.01 }, { context.recv, 0, 0.01 }, { context.query, me, 1, 0.01 },
           { context.wait, 2 ^ 40, 0.01 }, { tcp.accept, l, 0.01 },
           { tcp.connect, '127.0.0.1', l:local_port(), 0.01 },
         }
         for i = 1, #calls do
           local id = fork()
           if id == 0 then
             local ok, why = pcall(unpack(calls[i]))
             print(ok, why)
             os.exit(2)
           end
           assert(join(id) == 2)
         end
         -- The sockets of the other process are as they were.
         local ok, c = tcp.connect('127.0.0.1', l:local_port())
         local ok, s = l:accept()
         local id = fork()
         if id == 0 then l:close() s:close() c:close() return end
         print(join(id))
         s:write('still there')
         print(tostring(select(2, c:read(5))))
         l:close() c:close() s:close()",
    )
    .succeeded();
    let lines: Vec<&str> = done.stdout.lines().collect();
    assert_eq!(lines.len(), 8, "{done}");
    for line in &lines[..6] {
        assert!(line.starts_with("false\t") && line.contains("cannot wait"), "{done}");
        assert!(line.contains("in a process that was forked off"), "{done}");
    }
    assert_eq!(lines[6..], ["0", "still there"], "{done}");
    assert_eq!(done.stderr, "");
}

/// A signal to it neither is lost, nor ends the process that it was forked off.
#[test]
fn a_signal_ends_a_forked_child_alone() {
    let done = run_forking(
        "context.on_signal('USR1', function() end)
         for _, signal in ipairs { 15, 2, 10 } do
           local id = fork()
           if id == 0 then while true do ffi.C.pause() end end
           ffi.C.kill(id, signal)
           print(join(id))
         end
         context.on_signal('USR1', nil)
         context.recv(0, 0.001)
         print('goes on')",
    )
    .succeeded();
    assert_eq!(done.stdout, "1015\n1002\n1010\ngoes on\n", "{done}");
}
