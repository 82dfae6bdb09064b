//! Contexts that block their threads, in system calls or C functions: however many do, the others
//! go on.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::process::{Command, Stdio};

use support::{Folder, PATIENCE, Server, connect, node_lua, run};

/// An echo server, with a timer, that creates contexts; `...` is what they run, and how many do.
const MAIN: &str = "
    local file, count, argument = ...
    local _, listener = tcp.listen('127.0.0.1', 0)
    local beats, helper = 0, os.tmpname()
    local f = io.open(helper, 'w')
    f:write('context.send(context.parent(), (...))')
    f:close()
    timer.loop(0.001, 0.001, function() beats = beats + 1 end)
    listener:accept(function(_, sock)
      sock:set_rwopt({ read_head_bytes = 2, write_head_bytes = 2 })
      sock:read(function(good, data)
        if not good then return sock:close() end
        data = data:tostring()
        if data == 'beats' then
          sock:write(tostring(beats))
        elseif data == 'create' then
          local h = context.create(helper, 'new')
          local _, word = context.recv(h)
          sock:write(word)
        elseif data == 'end' then
          -- It has to wait, but need not run to end.
          local h = context.create(helper, 'new')
          context.destroy(h)
          context.wait(h)
          sock:write('ended')
        else
          sock:write(data)
        end
      end)
    end)
    local blocked = 0
    context.recv(0, function(_, what)
      blocked = blocked + 1
      if blocked == tonumber(count) then print('blocked') end
    end)
    print(tcp.local_port(listener))
    local all = {}
    for i = 1, tonumber(count) do
      all[i] = context.create(file, argument)
      -- What takes long waits while too many are stuck.
      timer.sleep(0)
    end
    if argument == 'later' then
      for i, h in ipairs(all) do context.send(h, i) end
    elseif argument == 'backwards' then
      for i = #all, 1, -1 do context.send(all[i], i) end
    elseif argument == 'destroyed' then
      for _, h in ipairs(all) do context.destroy(h) end
    end
    print('created')";

fn ask(client: &mut std::net::TcpStream, what: &str) -> String {
    use std::io::Write;
    client.write_all(&[&[what.len() as u8, 0], what.as_bytes()].concat()).unwrap();
    let mut head = [0; 2];
    std::io::Read::read_exact(client, &mut head).unwrap();
    let mut body = vec![0; usize::from(head[0])];
    std::io::Read::read_exact(client, &mut body).unwrap();
    String::from_utf8(body).unwrap()
}

/// 400 contexts block; the others go on, new ones start, and a signal ends the process.
#[test]
fn blocked_contexts_hold_nobody_up() {
    const COUNT: &str = "400";
    let folder = Folder::new();
    let pipe = folder.path("pipe");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let pipe = pipe.to_str().unwrap();
    for (name, script, argument) in [
        (
            "commands",
            "context.send(context.parent(), 1) os.execute('exec cat >/dev/null 2>&1')",
            "",
        ),
        (
            "reading",
            "local p = io.popen('exec cat 2>/dev/null') context.send(context.parent(), 1) p:read()",
            "",
        ),
        ("opening", "context.send(context.parent(), 1) io.open((...))", pipe),
        // Those whose turns have been short until then.
        (
            "later",
            "local _, n = context.recv(context.parent())
             context.send(context.parent(), 1)
             os.execute('exec cat >/dev/null 2>&1')",
            "later",
        ),
    ] {
        let file = folder.write(&format!("{name}.lua"), script);
        let main = folder.write("main.lua", MAIN);
        let args = [main.to_str().unwrap(), file.to_str().unwrap(), COUNT, argument];
        let mut command = node_lua();
        // What is started reads from there until this process lets go of it.
        command.args(["--grace", "1"]).args(args).stdin(Stdio::piped());
        let mut server = Server::spawn(&mut command);
        let mut client = connect(server.port());
        while server.line() != "blocked" {}
        let before: u64 = ask(&mut client, "beats").parse().unwrap();
        for _ in 0..20 {
            assert_eq!(ask(&mut client, "create"), "new", "{name}");
        }
        while ask(&mut client, "beats").parse::<u64>().unwrap() < before + 20 {}
        server.signal("TERM");
        let done = server.finish(PATIENCE);
        assert_eq!(done.code(), Some(143), "{name}: {done}");
    }
}

/// More contexts block than there are threads for, in C functions, at once or after some short
/// turns, or since nobody reads what is printed: what runs beside them goes on, and the log says
/// why others wait.
#[test]
fn more_contexts_than_threads_hold_nobody_up() {
    let folder = Folder::new();
    let main = folder.write("main.lua", MAIN);
    let pause = "local ffi = require 'ffi' ffi.cdef 'int pause(void)'
                 repeat until ffi.C.pause() == 0";
    let later = format!("context.recv(context.parent()) {pause}");
    let prints = "local text = ('x'):rep(60000) while true do timer.sleep(0.001) print(text) end";
    for (name, script, count, threads) in [
        ("waits", pause, "2300", 1024),
        ("later", &later, "3000", 1536),
        ("prints", prints, "2300", 1024),
    ] {
        let file = folder.write(&format!("{name}.lua"), script);
        let log = folder.path("log");
        let mut command = node_lua();
        command.env("RUST_LOG", "node_lua::sched=warn").arg(&main).arg(&file).args([count, name]);
        command.stderr(File::create(&log).unwrap());
        let mut process = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut output = BufReader::new(process.stdout.take().unwrap());
        let mut line = String::new();
        output.read_line(&mut line).unwrap();
        let mut client = connect(line.trim().parse().unwrap());
        let tasks = format!("/proc/{}/task", process.id());
        while std::fs::read_dir(&tasks).unwrap().count() < threads {
            ask(&mut client, "beats");
        }
        let mut beats = || ask(&mut client, "beats").parse::<u64>().unwrap();
        let before = beats();
        while beats() < before + 1000 {}
        assert_eq!(ask(&mut client, "end"), "ended", "{name}");
        let log = std::fs::read_to_string(&log).unwrap();
        assert!(log.contains(" turns are stuck in C functions or system calls: "), "{name}: {log}");
        process.kill().unwrap();
        process.wait().unwrap();
    }
}

/// The system starts no more than so many threads, and contexts block in C functions: at once,
/// after short turns, each after more turns than all before it or the youngest first, and in
/// finalisers as they end. The main script goes on, and a signal ends the process.
#[test]
fn where_few_threads_can_be_started_one_is_left_to_the_main_script() {
    const COUNT: usize = 60;
    let folder = Folder::new();
    let main = folder.write("main.lua", MAIN);
    let pause = "local ffi = require 'ffi' ffi.cdef 'int pause(void)'
                 local function block() repeat until ffi.C.pause() == 0 end";
    let later = "local _, n = context.recv(context.parent())";
    let turns = "for i = 1, n do timer.sleep(0) end";
    let finaliser = "KEPT = ffi.gc(ffi.new('char[1]'), block)";
    for (name, script, mode) in [
        ("at once", format!("{pause} block()"), ""),
        ("after short turns", format!("{pause} {later} block()"), "later"),
        ("after more turns", format!("{pause} {later} {turns} block()"), "later"),
        ("the youngest first", format!("{pause} {later} block()"), "backwards"),
        ("in finalisers", format!("{pause} {finaliser} {later}"), "destroyed"),
    ] {
        // The least with which it starts, and somewhat more.
        for threads in [9, 10, 30] {
            let file = folder.write("block.lua", &script);
            let Some(mut command) = with_threads(threads) else { return };
            command.arg(&main).arg(&file).args([&COUNT.to_string(), mode]);
            let mut server = Server::spawn(&mut command);
            let mut client = connect(server.port());
            assert_eq!(server.line(), "created", "{name}");
            let mut beats = || ask(&mut client, "beats").parse::<u64>().unwrap();
            let before = beats();
            while beats() < before + 300 {}
            assert_eq!(ask(&mut client, "end"), "ended", "{name}, {threads} threads");
            server.signal("TERM");
            let done = server.finish(PATIENCE);
            assert_eq!(done.code(), Some(143), "{name}, {threads} threads: {done}");
        }
    }
}

/// The binary where the system starts no more than so many threads; nothing where that cannot be
/// had. In a namespace of its own others do not count; root would have no limit.
fn with_threads(count: usize) -> Option<Command> {
    let node_lua = node_lua();
    let limited = |program: &OsStr| {
        let mut command = Command::new("unshare");
        command.args(["-U", "prlimit", &format!("--nproc={count}"), "--"]).arg(program);
        if std::fs::metadata("/proc/self").unwrap().uid() == 0 {
            command.uid(65_534).gid(65_534);
        }
        command.stdin(Stdio::null());
        command
    };
    let tried = limited(node_lua.get_program()).arg("-v").output();
    if tried.as_ref().is_ok_and(|done| done.status.success()) {
        return Some(limited(node_lua.get_program()));
    }
    eprintln!("skipped: no limit of threads here: {tried:?}");
    None
}

/// Nothing that would have a thread wait is taken for a script.
#[test]
fn scripts_are_regular_files() {
    let folder = Folder::new();
    let pipe = folder.path("pipe.lua");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let missing = folder.path("missing.lua");
    let script = "for _, file in ipairs { ... } do
                    for _, deny in ipairs { {}, { 'io' } } do
                      local h = context.create({ file = file, deny = deny })
                      context.monitor(h, function(_, reason, detail)
                        print(reason, (detail:gsub('.*/', '')))
                      end)
                      context.wait(h)
                    end
                  end";
    let files = [pipe.as_os_str(), "/dev/zero".as_ref(), "/".as_ref(), missing.as_os_str()];
    let main = folder.write("main.lua", script);
    let done = run(node_lua().arg(main).args(files)).succeeded();
    let expected = [
        "error\tpipe.lua: a script must be a regular file\n",
        "error\tzero: a script must be a regular file\n",
        "error\t: Is a directory\n",
        "error\tmissing.lua: No such file or directory\n",
    ];
    let twice: Vec<String> = expected.iter().map(|line| line.repeat(2)).collect();
    assert_eq!(done.stdout, twice.concat(), "{done}");
}

/// No more of a file is read than a script may have, and the context may hold.
#[test]
fn scripts_have_a_largest_size() {
    let folder = Folder::new();
    let sized = |name: &str, bytes| {
        let path = folder.write(name, "");
        File::options().write(true).open(&path).unwrap().set_len(bytes).unwrap();
        path
    };
    let huge = sized("huge.lua", (64 << 20) + 1);
    let large = sized("large.lua", 4 << 20);
    let script = "for _, file in ipairs { ... } do
                    local h = context.create({ file = file, memory = 2 ^ 21 })
                    context.monitor(h, function(_, reason, detail)
                      print(reason, (detail:gsub('^[^:]*/', ''):gsub('%(%d+%)', '(N)')))
                    end)
                    context.wait(h)
                  end";
    let main = folder.write("main.lua", script);
    let files = [huge.as_os_str(), large.as_os_str(), "/proc/kallsyms".as_ref()];
    let done = run(node_lua().arg(main).args(files)).succeeded();
    let mut lines = done.stdout.lines();
    let mut next = || lines.next().unwrap_or_default();
    assert_eq!(next(), "error\thuge.lua: it has 67108865 bytes, a script at most 67108864");
    let expected = "error\tlarge.lua: it has 4194304 bytes, more than the memory limit leaves (N)";
    assert_eq!(next(), expected);
    // Where the system tells only some users what is in it, it is none of Lua.
    assert!(next().starts_with("error\tkallsyms:"), "{done}");
}

/// The main script is read once, before anything runs: from a pipe too.
#[test]
fn the_main_script_may_come_from_a_pipe() {
    let node_lua = node_lua();
    let shell =
        "\"$0\" <(echo \"print('from a pipe', ...)\") 7; echo 'print(8)' | \"$0\" /dev/stdin";
    let done = run(Command::new("bash").args(["-c", shell]).arg(node_lua.get_program()));
    assert_eq!(done.succeeded().stdout, "from a pipe\t7\n8\n");
}

/// The worker is given up meanwhile: a signal would end the call early.
#[test]
fn a_call_of_c_that_waits_is_not_interrupted() {
    let code = "local ffi = require 'ffi'
        ffi.cdef 'int poll(void *, unsigned long, int);'
        for i = 1, 4 do io.write(ffi.C.poll(nil, 0, 150), ' ') timer.sleep(0.001) end";
    let done = run(node_lua().args(["-e", code]));
    assert_eq!(done.stdout, "0 0 0 0 ", "{done}");
}

/// Nor is it where the process has no descriptor to look at a thread with.
#[test]
fn nor_is_it_without_descriptors() {
    let folder = Folder::new();
    let script = folder.write(
        "main.lua",
        "local ffi = require 'ffi'
         ffi.cdef 'int poll(void *, unsigned long, int);'
         local held = {}
         repeat
           held[#held + 1] = io.open('/dev/null')
         until #held > 0 and not io.open('/dev/null')
         for i = 1, 4 do io.write(ffi.C.poll(nil, 0, 150), ' ') timer.sleep(0.001) end",
    );
    let mut command = std::process::Command::new("sh");
    command.args(["-c", "ulimit -n 64; exec \"$@\"", "sh", env!("CARGO_BIN_EXE_node-lua")]);
    let done = run(command.arg(script));
    assert_eq!(done.stdout, "0 0 0 0 ", "{done}");
}
