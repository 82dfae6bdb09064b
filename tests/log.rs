//! The log: nothing of it is lost while somebody reads it, and nobody is held up if nobody does.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::io::{BufRead, BufReader, Read};
use std::process::{Command, Stdio};
use std::time::Instant;

use support::{Done, Folder, node_lua, run};

/// Runs the binary with what follows it in a shell: `2>&1 | …`.
fn piped(script: &std::path::Path, arguments: &str, rest: &str) -> Done {
    let node_lua = node_lua();
    let mut command = Command::new("sh");
    command.env_remove("RUST_LOG").stdin(Stdio::null());
    command.arg("-c").arg(format!("\"$0\" \"$1\" {arguments} 2>&1 | {rest}"));
    run(command.arg(node_lua.get_program()).arg(script))
}

#[test]
fn a_burst_of_one_context_arrives_whole_through_a_reader_that_starts_late() {
    let folder = Folder::new();
    let script = folder.write(
        "burst.lua",
        "local n, line = tonumber((...)), ('x'):rep(tonumber((select(2, ...))))
         for i = 1, n do context.log('LINE', i, line, 'END') end",
    );
    // More than the queue holds, and more than a pipe; short lines and long ones.
    for (count, bytes) in [(300_000, 80), (8_000, 5_000), (12, 3_000_000)] {
        let check = "awk -F'\\t' '/LINE/ && $4 == \"END\" && $2 == n + 1 { n++ } END { print n }'";
        let done = piped(&script, &format!("{count} {bytes}"), &format!("(sleep 1; {check})"));
        assert_eq!(done.stdout.trim(), count.to_string(), "lines of {bytes} bytes");
    }
}

#[test]
fn bursts_of_many_contexts_arrive_whole_and_their_timers_go_on() {
    let folder = Folder::new();
    let child = folder.write(
        "child.lua",
        "local id = ...
         for i = 1, 10000 do context.log('LINE', id, i, ('x'):rep(400), 'END') end",
    );
    let main = folder.write(
        "main.lua",
        format!(
            "for i = 1, 10 do context.create({:?}, i) end
             local beats = 0
             local id = timer.loop(0.01, 0.01, function() beats = beats + 1 end)
             timer.timeout(0.5, function()
               timer.close(id)
               context.log('BEATS', beats > 10)
             end)",
            child.to_str().unwrap()
        ),
    );
    let check =
        "awk -F'\\t' '/LINE/ && $5 == \"END\" { n++ } /BEATS/ { b = $2 } END { print n, b }'";
    let done = piped(&main, "", &format!("(sleep 1; {check})"));
    assert_eq!(done.stdout.trim(), "100000 true");
}

/// Entries of a burst leave together: far fewer calls than entries.
#[test]
#[cfg(target_os = "linux")]
fn many_entries_leave_with_one_call() {
    let script = "for i = 1, 20000 do context.log('line', i) end
                  timer.timeout(0.1, function()
                    local io = io.open('/proc/self/io'):read('*a')
                    print(tonumber(io:match('syscw: (%d+)')) < 4000)
                  end)";
    let done = run(node_lua().args(["-e", script])).succeeded();
    assert_eq!(done.stdout, "true\n");
    assert_eq!(done.stderr.lines().count(), 20000);
}

/// Nobody reads standard error: whoever logs waits for a while, and then goes on, as does
/// everybody else; what is lost is counted.
#[test]
fn a_log_that_nobody_reads_holds_nobody_up() {
    let script = "local other = os.tmpname()
                  local f = io.open(other, 'w')
                  f:write('local beats = 0 '
                    .. 'timer.loop(0.01, 0.01, function() beats = beats + 1 end) '
                    .. 'context.recv(0, function(_, _, from, session) '
                    .. 'context.reply(from, session, beats) end)')
                  f:close()
                  local h = context.create(other)
                  context.query(h, 1)
                  os.remove(other)
                  local line = ('x'):rep(1000)
                  for i = 1, 30000 do context.log(line) end
                  local s = context.stat()
                  assert(s.log_dropped > 1000 and s.log_bytes > 2 ^ 23 and s.log_bytes <= 2 ^ 24)
                  print(s.log_dropped)
                  print(select(2, context.query(h, 1)) > 50)
                  context.recv(0)";
    let mut child = node_lua()
        .args(["-e", script])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let (mut dropped, mut beats) = (String::new(), String::new());
    let mut output = BufReader::new(child.stdout.take().unwrap());
    output.read_line(&mut dropped).unwrap();
    output.read_line(&mut beats).unwrap();
    assert_eq!(beats, "true\n", "timers of others went on");
    let mut log = BufReader::new(child.stderr.take().unwrap());
    let lost = format!("node-lua: {} entries of the log were lost\n", dropped.trim());
    let (mut lines, mut last) = (0, String::new());
    while last != lost {
        last.clear();
        assert!(log.read_line(&mut last).unwrap() > 0, "{lines} lines, and not: {lost}");
        lines += 1;
    }
    assert_eq!(lines + dropped.trim().parse::<i32>().unwrap(), 30001);
    child.kill().unwrap();
    child.wait().unwrap();
    drop(log.read_to_end(&mut Vec::new()));
}

/// What was logged before the end is written, however the process ends.
#[test]
fn what_was_logged_is_written_at_the_end() {
    for end in ["", "os.exit(0)", "os.exit(3)"] {
        let script = format!("for i = 1, 500 do context.log('line ' .. i) end {end}");
        let done = run(node_lua().args(["-e", &script]));
        assert_eq!(done.stderr.lines().count(), 500, "{end}: {done}");
        assert!(done.stderr.trim_end().ends_with("line 500"), "{end}: {done}");
    }
}

#[test]
fn whatever_is_said_of_a_context_has_its_name() {
    let folder = Folder::new();
    let child = folder.write(
        "child.lua",
        "local how = ...
         if how == 'log' then context.log('hello') end
         if how == 'error' then error('oops') end
         if how == 'callback' then timer.timeout(0, function() error('later') end) end
         if how == 'memory' then local t = {} while true do t[#t + 1] = ('x'):rep(999) .. #t end end
         if how == 'time' then while true do end end
         if how == 'destroyed' then context.send(context.parent(), 1) context.recv(0) end",
    );
    let script = "local child = ...
         for _, how in ipairs { 'log', 'error', 'callback', 'memory', 'time', 'destroyed' } do
           local h = context.create({
             file = child, name = 'gate-' .. how, memory = 2 ^ 22, turn_limit = 0.1,
           }, how)
           if how == 'destroyed' then context.recv(h) context.destroy(h, 'enough') end
           context.wait(h)
         end
         context.create({ file = '/nowhere/x.lua', name = 'gate-missing' })";
    let done =
        run(node_lua().env("RUST_LOG", "info").arg(folder.write("main.lua", script)).arg(&child));
    for (how, text) in [
        ("log", ": hello"),
        ("error", ":3: oops"),
        ("callback", ":4: later"),
        ("memory", "out of memory (210)"),
        ("time", "(211)"),
        ("destroyed", " destroyed: enough"),
        ("missing", "cannot open"),
    ] {
        let name = format!("(gate-{how})");
        let line = done.stderr.lines().find(|line| line.contains(&name));
        let line = line.unwrap_or_else(|| panic!("{how}: {done}"));
        assert!(line.contains(text) && line.contains("] context "), "{how}: {line}");
    }
}

#[test]
fn no_text_passes_for_another_entry() {
    let script = "context.name('a\\n[x ERROR script] b')
                  context.log('one\\n[2026 ERROR script] context 7: forged', 'a\\0b\\27[2Jc\\200')
                  timer.timeout(0, function()
                    error('two\\n[2026 ERROR script] context 7: forged\\nnode-lua: x.lua:1: y', 0)
                  end)";
    let done = run(node_lua().args(["-e", script])).succeeded();
    let lines: Vec<&str> = done.stderr.lines().collect();
    let [first, second, third, fourth, fifth, ..] = lines[..] else { panic!("{done}") };
    assert!(first.ends_with("context 1 (a\\x0a[x ERROR script] b): one"), "{done}");
    let text = "    [2026 ERROR script] context 7: forged\ta\\x00b\\x1b[2Jc\\xc8";
    assert_eq!((second, third), (text, "node-lua: two"), "{done}");
    assert_eq!(fourth, "    [2026 ERROR script] context 7: forged", "{done}");
    assert_eq!(fifth, "    node-lua: x.lua:1: y", "{done}");
}

#[test]
fn what_rust_log_names_that_is_not_there_is_complained_about() {
    let script = "context.log('a line') error('boom')";
    for (wanted, complaints, has_error, has_line) in [
        ("", 0, true, true),
        ("warning", 1, true, true),
        ("scirpt=info", 1, true, true),
        ("script=loud", 1, true, true),
        ("error,scirpt=info", 1, true, true),
        ("error", 0, true, false),
        ("script=off", 0, true, false),
        ("node_lua=debug", 0, true, false),
        ("info/nothing like this", 0, true, false),
        ("OFF", 0, false, false),
        ("of", 1, true, true),
    ] {
        let done = run(node_lua().env("RUST_LOG", wanted).args(["-e", script]));
        let complained = done.stderr.matches("node-lua: RUST_LOG: ").count();
        let (error, line) = (done.stderr.contains("boom"), done.stderr.contains("a line"));
        assert_eq!(
            (complained, error, line),
            (complaints, has_error, has_line),
            "{wanted}: {done}"
        );
        assert_eq!(done.code(), Some(1));
    }
    let done = run(node_lua().env("RUST_LOG_STYLE", "alwyas").args(["-e", ""])).succeeded();
    assert!(done.stderr.starts_with("node-lua: RUST_LOG_STYLE: 'alwyas' is ignored"), "{done}");
    let done = run(node_lua().env("RUST_LOG", "warning").args(["--simulate", "1", "-e", script]));
    assert!(done.stderr.contains("RUST_LOG: 'warning'") && done.stderr.contains("boom"), "{done}");
}

/// Errors that nobody catches: the first hundred, and then how many there were.
#[test]
fn errors_are_counted_where_there_are_too_many() {
    let script = "local n = 0
                  local function fail()
                    n = n + 1
                    if n < 5000 then timer.timeout(0, fail) else timer.timeout(0, os.exit) end
                    error('oops ' .. n)
                  end
                  timer.timeout(0, fail)";
    for simulated in [&[][..], &["--simulate", "3"]] {
        let script = match simulated.is_empty() {
            true => script.to_owned(),
            // In virtual time the ten seconds pass.
            false => script.replace("os.exit", "function() end"),
        };
        let done = run(node_lua().args(simulated).args(["-e", &script]));
        let logged = done.stderr.matches("oops").count();
        let more: usize = done
            .stderr
            .lines()
            .filter_map(|line| line.split_once("context 1: ")?.1.split_once(" more errors in the"))
            .map(|(count, _)| count.parse::<usize>().unwrap())
            .sum();
        assert!(logged >= 100 && more > 100 && logged + more == 5000, "{logged} {more}: {done}");
    }
    // A text of any length costs a line of some length.
    let script = "timer.timeout(0, function() error(('x'):rep(2 ^ 22), 0) end)";
    let done = run(node_lua().args(["-e", script])).succeeded();
    assert!(
        done.stderr.len() < 70_000 && done.stderr.contains("more bytes"),
        "{}",
        done.code().unwrap()
    );
}

/// What a confined context creates logs no more than it might itself, however many those are, and
/// however they end.
#[test]
fn children_of_the_confined_share_its_entries() {
    let folder = Folder::new();
    let child = folder.write(
        "child.lua",
        "local how = ...
         if how == 'log' then for i = 1, 100 do context.log('LINE') end end
         if how == 'error' then error('FAILED') end
         if how == 'time' then while true do end end
         local t = {}
         while how == 'memory' do t[#t + 1] = ('x'):rep(999) .. #t end",
    );
    let confined = folder.write(
        "confined.lua",
        "local child = ...
         local limits = { file = child, memory = 2 ^ 20, turn_limit = 0.01 }
         for i = 1, 200 do
           for _, how in ipairs { 'log', 'error' } do context.wait(context.create(child, how)) end
           if i < 30 then
             for _, how in ipairs { 'time', 'memory' } do
               context.wait(context.create(limits, how))
             end
           end
           context.wait((context.create('/' .. ('x'):rep(4000) .. i)))
         end",
    );
    let script = "for _, deny in ipairs { { 'ffi' }, { 'io', 'os', 'network' } } do
                    local how = { file = (...), deny = deny, name = 'c' }
                    context.wait(context.create(how, (select(2, ...))))
                    context.log('NEXT')
                  end";
    let main = folder.write("main.lua", script);
    let begun = Instant::now();
    let done = run(node_lua().arg(main).arg(&confined).arg(&child)).succeeded();
    // Each time they may log as much again.
    let windows = 1 + begun.elapsed().as_secs() as usize / 10;
    let logged: Vec<_> = done.stderr.split("NEXT").collect();
    for logged in &logged[..2] {
        let count = |text| logged.lines().filter(|line| line.contains(text)).count();
        let (lines, shown) = (count("LINE"), count("xxxxx"));
        let errors = count("FAILED") + count("(210)") + count("(211)") + shown;
        assert!((10_000..=10_000 * windows).contains(&lines), "{lines} {windows}");
        assert!((100..=100 * windows).contains(&errors), "{errors} {windows}");
        assert!(shown > 5 && logged.len() < 2_000_000 * windows, "{shown} {}", logged.len());
    }
    for what in ["(c): 10000 more entries", " more errors"] {
        let is_told = windows > 1 || done.stderr.matches(what).count() >= 2;
        assert!(is_told, "{what}: {}", done.stderr.len());
    }
}

/// A confined script has so many entries, and its creator as many as it likes.
#[test]
fn entries_of_confined_scripts_are_counted_where_there_are_too_many() {
    let folder = Folder::new();
    let child = folder.write(
        "child.lua",
        "for i = 1, 15000 do context.log('LINE') end context.send(context.parent(), 1)",
    );
    let script = "for _, deny in ipairs { {}, { 'io' } } do
                    local h = context.create({ file = (...), deny = deny, name = 'c' })
                    context.recv(h)
                    context.wait(h)
                    context.log('NEXT')
                  end";
    let done = run(node_lua().arg(folder.write("main.lua", script)).arg(&child)).succeeded();
    let (free, confined) = done.stderr.split_once("NEXT").unwrap();
    assert_eq!(free.matches("LINE").count(), 15000);
    assert_eq!(confined.matches("LINE").count(), 10000);
    assert!(confined.contains("(c): 5000 more entries in the last 10 s were not logged"));
}

/// As any other error of it, for editors to find.
#[test]
fn a_main_script_that_is_ended_is_told_as_its_error() {
    for (options, script, text) in [
        (["--turn-limit", "0.05"], "while true do end", "context killed over its time limit"),
        (
            ["--memory-limit", "20M"],
            "local t = {} while true do t[#t + 1] = {} end",
            "context out of memory (210): ",
        ),
    ] {
        let done = run(node_lua().args(options).args(["-e", script]));
        assert_eq!(done.code(), Some(1), "{done}");
        assert!(done.stderr.starts_with(&format!("node-lua: {text}")), "{done}");
    }
}

#[test]
fn a_directive_without_a_level_is_told_what_it_lacks() {
    let done = run(node_lua().env("RUST_LOG", "warn,script=").args(["-e", ""])).succeeded();
    let text = "node-lua: RUST_LOG: 'script=' is ignored: a level (off, error, warn, info, debug \
                or trace) expected, got nothing\n";
    assert_eq!(done.stderr, text);
}

#[test]
fn what_cannot_be_text_is_refused_where_it_was_to_be_logged() {
    for wrong in ["{}", "true", "12", "nil"] {
        let code = format!(
            "local t = setmetatable({{}}, {{ __tostring = function() return {wrong} end }})
             print(pcall(context.log, 'a', t))
             context.log(t)"
        );
        let done = run(node_lua().args(["-e", &code]));
        assert_eq!(done.code(), Some(1), "{wrong}: {done}");
        let text = "'tostring' must return a string to 'log'";
        assert_eq!(done.stdout, format!("false\t(command line):2: {text}\n"), "{wrong}: {done}");
        assert!(done.stderr.contains(&format!("(command line):3: {text}")), "{wrong}: {done}");
    }
}
