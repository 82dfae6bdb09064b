//! Why contexts end, as others are told; and what contexts do not share: random numbers, sessions.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use support::{Done, Folder, beside, node_lua, run};

/// Runs `main` beside `child.lua`; `here` is their folder.
fn run_with(child: &str, main: &str) -> Done {
    let (_folder, mut command) = beside(&[("child.lua", child)], main);
    run(command.env("RUST_LOG", "off"))
}

/// What a monitor is told of a context that runs `child`: its reason, and `detail` of the detail.
#[track_caller]
fn assert_ends(child: &str, detail: &str, expected: &str) {
    let main = format!(
        "context.monitor(context.create(here .. '/child.lua'), function(_, reason, detail)
           print(reason, {detail})
         end)"
    );
    let done = run_with(child, &main).succeeded();
    assert_eq!(done.stdout, format!("{expected}\n"), "{child}: {done}");
}

#[test]
fn a_context_that_ends_itself_says_why() {
    let whole = "detail";
    assert_ends("context.destroy('enough') timer.sleep(1)", whole, "killed\tenough");
    assert_ends("context.destroy(context.self(), 'enough')", whole, "killed\tenough");
    assert_ends("context.destroy('first') context.destroy('second')", whole, "killed\tfirst");
    assert_ends("context.run(context.destroy, 'later')", whole, "killed\tlater");
    assert_ends("context.destroy('a\\0b\\255')", "detail == 'a\\0b\\255'", "killed\ttrue");
    assert_ends("context.destroy('')", "detail == ''", "killed\ttrue");
    assert_ends("context.destroy(nil, 'enough') timer.sleep(1)", whole, "killed\tenough");
    // Without a reason it has ended by itself.
    assert_ends("context.destroy() timer.sleep(1)", whole, "normal\tnil");
    assert_ends("context.destroy(nil) timer.sleep(1)", whole, "normal\tnil");
    assert_ends("context.destroy(context.self())", whole, "normal\tnil");
    // What failed before is not the reason that is given.
    assert_ends("context.run(context.destroy, 'given') error('x')", whole, "killed\tgiven");
}

/// A context that is being closed has not ended: what it holds is still there.
#[test]
fn who_waits_for_a_context_that_is_being_closed_waits_for_its_finalisers() {
    let child = "local begun, go, done = ...
         local function note(name) io.open(name, 'w'):close() end
         local kept = newproxy(true)
         getmetatable(kept).__gc = function()
           note(begun)
           while not io.open(go) do end
           note(done)
         end
         context.recv(0, function() return kept end)
         context.send(context.parent(), 'ready')";
    let main = "local begun, go, done = here .. '/begun', here .. '/go', here .. '/done'
         local h = context.create(here .. '/child.lua', begun, go, done)
         context.recv(h)
         context.destroy(h)
         while not io.open(begun) do timer.sleep(0.001) end
         context.wait(h, function(ok, code)
           print(ok, code, io.open(done) ~= nil, context.send(h, 1))
         end)
         io.open(go, 'w'):close()";
    let done = run_with(child, main).succeeded();
    assert_eq!(done.stdout, "true\t0\ttrue\tfalse\t205\n", "{done}");
}

#[test]
fn the_text_of_an_error_arrives_whole() {
    let first = "(detail:match('^[^\\n]*'))";
    assert_ends("error('a\\0b', 0)", "(detail:match('^a%zb\\nstack'))", "error\ta\0b\nstack");
    assert_ends("error('\\255\\254', 0)", "detail:byte(1, 2)", "error\t255\t254");
    assert_ends("error(('x'):rep(1e6), 0)", "#detail > 1e6", "error\ttrue");
    assert_ends("error(nil)", "(detail:match('nil'))", "error\tnil");
    assert_ends("error({})", "(detail:match('^table: 0x'))", "error\ttable: 0x");
    let named = "error(setmetatable({}, {__tostring = function() return 'mine\\0!' end}))";
    assert_ends(named, "(detail:match('^mine%z!'))", "error\tmine\0!");
    assert_ends("timer.sleep(0.001) error('late', 0)", first, "error\tlate");
    assert_ends(
        "local function",
        "(detail:match(\"'<name>' expected near '<eof>'\"))",
        "error\t'<name>' expected near '<eof>'",
    );
    assert_ends(
        "return '\\0' +",
        "(detail:match('unexpected symbol'))",
        "error\tunexpected symbol",
    );
}

#[test]
fn a_reason_of_others_arrives_whole() {
    let done = run_with(
        "timer.sleep(60)",
        "for _, reason in ipairs({ 'a\\0b', '', '\\255', ('x'):rep(100000) }) do
           local h = context.create(here .. '/child.lua')
           context.monitor(h, function(_, why, detail) print(why, detail == reason) end)
           context.destroy(h, reason)
           context.wait(h)
         end",
    );
    assert_eq!(done.succeeded().stdout, "killed\ttrue\n".repeat(4));
}

#[test]
fn very_long_texts_of_contexts_with_a_memory_limit_are_cut() {
    let main = "for _, code in ipairs({ 'x', 'y' }) do
           local h = context.create({ file = here .. '/child.lua', memory = 2^24 }, code)
           context.monitor(h, function(_, why, detail)
             print(why, #detail < 70000, (detail:match('… and %d+ more bytes')))
           end)
           context.wait(h)
         end";
    let child = "if ... == 'x' then error(('x'):rep(100000), 0) end
        context.destroy(('y'):rep(100000))";
    let done = run_with(child, main).succeeded();
    let lines: Vec<_> = done.stdout.lines().collect();
    assert!(lines[0].starts_with("error\ttrue\t… and 34"), "{done}");
    assert_eq!(lines[1], "killed\ttrue\t… and 34464 more bytes", "{done}");
}

#[test]
fn no_two_contexts_or_processes_draw_the_same_random_numbers() {
    let main = "local seen, count = {}, 0
        local function see(n) if not seen[n] then seen[n] = true count = count + 1 end end
        see(math.random(2^31))
        for i = 1, 20 do context.create(here .. '/child.lua') end
        for i = 1, 20 do see(select(2, context.recv(0))) end
        print(count, math.random(2^31))";
    let child = "context.send(context.parent(), math.random(2^31))";
    let one = run_with(child, main).succeeded().stdout;
    let other = run_with(child, main).succeeded().stdout;
    assert!(one.starts_with("21\t") && other.starts_with("21\t"), "{one}{other}");
    assert_ne!(one, other);
    // A seed of the script's own makes them the same.
    let child = "math.randomseed(1) context.send(context.parent(), math.random(2^31))";
    assert!(run_with(child, main).succeeded().stdout.starts_with("2\t"));
}

#[test]
fn nobody_answers_a_query_that_he_was_not_given() {
    // The asker's other queries, and many of their neighbours, do not tell the session.
    let done = run_with(
        "context.recv(0, function(_, what, from, session)
           timer.sleep(0.05)
           context.reply(from, session, 'true answer')
         end)",
        "local h = context.create(here .. '/child.lua')
         local me, seen = context.self(), {}
         context.recv(0, function(_, _, from, session)
           seen[#seen + 1] = session
           for d = -300, 300 do context.reply(me, session + d, 'forged') end
           for n = 0, 300 do context.reply(me, n, 'forged') end
         end)
         for i = 1, 20 do context.query(me, 1, 1, function() end) end
         print(context.query(h, 'x', 30))
         local small, steps = 0, {}
         for i = 2, #seen do
           if seen[i] < 2^32 then small = small + 1 end
           steps[seen[i] - seen[i - 1]] = true
         end
         local different = 0
         for _ in pairs(steps) do different = different + 1 end
         print(#seen, small, different)
         os.exit(0)",
    );
    assert_eq!(done.succeeded().stdout, "true\ttrue answer\n20\t0\t19\n");
}

#[test]
fn whoever_was_given_a_session_may_answer_once() {
    let done = run_with(
        "context.recv(0, function(_, what)
           local asker, session = what[1], what[2]
           context.reply(asker, session, 'from another')
           context.reply(asker, session, 'again')
         end)",
        "local worker = context.create(here .. '/child.lua')
         context.recv(0, function(_, _, from, session) context.send(worker, { from, session }) end)
         print(context.query(context.self(), 'question', 30))
         print(context.query(context.self(), 'another', 30))
         local _, own = context.query(context.self(), 'a third', 30, function(...)
           print(...)
           os.exit(0)
         end)
         context.reply(context.self(), own, 'the session that query returns')",
    );
    let me = "1";
    assert_eq!(
        done.succeeded().stdout,
        format!(
            "true\tfrom another\ntrue\tfrom another\n\
             true\tthe session that query returns\t{me}\ta third\t30\n"
        )
    );
}

#[test]
fn a_session_is_over_with_its_answer_its_timeout_or_its_end() {
    let done = run_with(
        "local _, _, from, session = context.recv(0)
         context.recv(from)
         print(context.reply(from, session, 'too late'))
         context.send(from, 'done')",
        "local h = context.create(here .. '/child.lua')
         print(context.query(h, 'q', 0.01))
         context.send(h, 'go')
         print((select(2, context.recv(h))))
         local h = context.create(here .. '/child.lua')
         context.query(h, 'q', function(...) print(...) end)
         context.destroy(h)
         context.wait(h)
         print(context.query(context.self(), 'nobody'))
         print(context.query(12345, 'nobody'))",
    );
    let lines = done.succeeded().stdout;
    assert!(lines.starts_with("false\t208\ntrue\ndone\nfalse\t207\t"), "{lines}");
    assert!(lines.ends_with("\tq\nfalse\t207\nfalse\t205\n"), "{lines}");
}

#[test]
fn a_simulation_repeats_sessions_and_random_numbers() {
    let folder = Folder::new();
    let child = folder.write("child.lua", "context.send(context.parent(), math.random())");
    let main = folder.write(
        "main.lua",
        format!(
            "context.recv(0, function(_, value, from, session) print(value, session) end)
             for i = 1, 3 do context.query(context.self(), i, 1, function() end) end
             for i = 1, 3 do context.create('{}') end
             print(math.random())
             timer.sleep(2)
             os.exit(0)",
            child.display()
        ),
    );
    let simulate = |seed: &str| run(node_lua().args(["--simulate", seed]).arg(&main)).succeeded();
    let (one, again, other) = (simulate("5"), simulate("5"), simulate("6"));
    assert_eq!(one.stdout.lines().count(), 7, "{one}");
    assert_eq!(one.stdout, again.stdout);
    assert_ne!(one.stdout, other.stdout);
}

#[test]
fn names_of_files_in_tracebacks_are_any_bytes() {
    use std::os::unix::ffi::OsStrExt;
    let folder = Folder::new();
    let child = folder.write("child.lua", "error('lost')");
    let odd = child.with_file_name(std::ffi::OsStr::from_bytes(b"odd\xff.lua"));
    std::fs::rename(child, odd).unwrap();
    let main = folder.write(
        "main.lua",
        "context.monitor(context.create('odd\\255.lua'), function(_, reason, detail)
           print(reason, select(2, detail:gsub('odd\\255%.lua', '')))
         end)",
    );
    let done = run(node_lua().env("RUST_LOG", "off").arg(main)).succeeded();
    assert_eq!(done.stdout, "error\t2\n");
}

#[test]
fn one_who_never_ran_is_logged_with_the_reason() {
    let folder = Folder::new();
    folder.write("child.lua", "print('never')");
    let main = folder.write(
        "main.lua",
        "local child = context.create { file = 'child.lua', name = 'early' }
         context.destroy(child, 'too soon')
         print(context.wait(child))",
    );
    let done = run(node_lua().env("RUST_LOG", "info").arg(main)).succeeded();
    assert!(done.stderr.contains("(early) destroyed: too soon\n"), "{done}");
}

#[test]
fn where_a_loop_was_is_told_of_the_context_that_was_in_it() {
    let folder = Folder::new();
    folder.write("hungry.lua", "local t = {} while true do t[#t + 1] = ('x'):rep(999) .. #t end");
    folder.write("loop.lua", "local function spin()\n while true do end\nend\nspin()");
    // Those for whom memory was too little are interrupted too; the state of the next context comes
    // to lie where theirs was.
    let main = folder.write(
        "main.lua",
        "for _ = 1, 12 do
           context.wait(context.create { file = 'hungry.lua', memory = 8 * 2 ^ 20 })
           local child = context.create { file = 'loop.lua', turn_limit = 0.02 }
           context.monitor(child, function(_, reason, detail) print(reason, detail) end)
           context.wait(child)
         end",
    );
    let done = run(node_lua().env("RUST_LOG", "off").arg(main)).succeeded();
    let path = folder.path("loop.lua").display().to_string();
    let one = format!(
        "time\tstack traceback:\n\t{path}:2: in function 'spin'\n\t{path}:4: in main chunk\n"
    );
    assert_eq!(done.stdout, one.repeat(12));
}

/// All finalisers of a context that ends have some time together, however many there are, those too
/// that run when it is to end.
#[test]
fn finalisers_that_do_not_end_are_interrupted_together() {
    let folder = Folder::new();
    let child = folder.write(
        "child.lua",
        "local function spin() while true do end end
         local function make()
           kept = {}
           for i = 1, 100 do
             kept[i] = newproxy(true)
             getmetatable(kept[i]).__gc = make
           end
         end
         local function deep() pcall(deep) pcall(deep) end
         local kinds = {
           loop = { __gc = spin },
           again = { __gc = function() while true do pcall(spin) end end },
           deep = { __gc = deep },
           caught = { __gc = pcall, __call = spin },
           more = { __gc = make },
         }
         local all = {}
         local kind, within = ...
         for i = 1, 20000 do
           all[i] = newproxy(true)
           for name, value in pairs(kinds[kind]) do getmetatable(all[i])[name] = value end
         end
         context.send(context.parent(), all[1] ~= nil)
         if within then
           all = nil
           collectgarbage()
         end
         context.recv(0)",
    );
    let main = folder.write(
        "main.lua",
        "local file = ...
         for _, kind in ipairs { 'loop', 'again', 'deep', 'caught', 'more' } do
           for _, within in ipairs { false, true } do
             local h = context.create(file, kind, within)
             context.recv(h)
             context.destroy(h)
             -- It may be gone by now.
             local ended, code = context.wait(h, 60)
             print(kind, ended or code == 205)
           end
         end",
    );
    let done = run(node_lua().env("RUST_LOG", "off").args([main, child])).succeeded();
    let kinds = ["loop", "again", "deep", "caught", "more"];
    let twice = kinds.map(|kind| format!("{kind}\ttrue\n").repeat(2));
    assert_eq!(done.stdout, twice.concat(), "{done}");
}
