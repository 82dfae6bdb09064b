//! Tables of options in a wrong shape, and callbacks of scripts that fail inside the library.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use support::{Done, Folder, beside, node_lua, run};

/// Runs `main` beside `child.lua`; `here` is their folder.
fn run_with(child: &str, main: &str) -> Done {
    let (_folder, mut command) = beside(&[("child.lua", child)], main);
    run(command.env("RUST_LOG", "off"))
}

/// Each call of `call` with one of these is refused in line 3 with a text that has all the parts.
#[track_caller]
fn assert_refused(call: &str, cases: &[(&str, &[&str])]) {
    let list: String = cases.iter().map(|(value, _)| format!("{value}, ")).collect();
    let main = format!(
        "local cases = {{ {list} }}
         local function try(options) {call}(options) end
         for i = 1, {} do
           local ok, why = pcall(try, cases[i])
           print(ok, (tostring(why):gsub('\\n', ' ')))
         end
         os.exit(0)",
        cases.len()
    );
    let done = run_with("print('ran')", &main).succeeded();
    let lines: Vec<&str> = done.stdout.lines().collect();
    assert_eq!(lines.len(), cases.len(), "{done}");
    for (line, (value, parts)) in lines.iter().zip(cases) {
        assert!(line.starts_with("false\t") && line.contains("main.lua:3: "), "{value}: {line}");
        for part in *parts {
            assert!(line.contains(part), "{value}: {line:?} has no {part:?}");
        }
    }
}

#[test]
fn lists_of_denials_in_another_shape_are_refused() {
    let known = "\"ffi\", \"io\", \"os\", \"loadlib\", \"network\" or \"create\"";
    let deny = |list: &str| format!("{{ file = here .. '/child.lua', deny = {list} }}");
    let cases = [
        ("{ ffi = true }", vec!["'deny' of 'create'", "key string \"ffi\"", "{ \"io\", \"os\" }"]),
        ("{ 'io', ffi = true }", vec!["'deny' of 'create'", "key string \"ffi\""]),
        ("{ 'io', nil, 'os' }", vec!["'deny[2]'", known, "got nil"]),
        ("{ [2] = 'io' }", vec!["'deny[1]'", known, "got nil"]),
        ("{ [0] = 'io' }", vec!["key number 0"]),
        ("{ [1.5] = 'io' }", vec!["key number 1.5"]),
        ("{ { 'io' } }", vec!["'deny[1]'", known, "got table"]),
        ("{ 'io', 5 }", vec!["'deny[2]'", known, "got number 5"]),
        ("{ 'oi' }", vec!["'deny[1]'", known, "got string \"oi\""]),
        ("'io'", vec!["'deny'", "list of names", "got string \"io\""]),
        ("true", vec!["'deny'", "list of names", "got boolean true"]),
    ];
    let cases: Vec<(String, Vec<&str>)> =
        cases.into_iter().map(|(list, parts)| (deny(list), parts)).collect();
    let cases: Vec<(&str, &[&str])> =
        cases.iter().map(|(options, parts)| (options.as_str(), parts.as_slice())).collect();
    assert_refused("context.create", &cases);
}

#[test]
fn an_empty_or_whole_list_of_denials_is_taken() {
    let done = run_with(
        "context.send(context.parent(), (pcall(require, 'ffi')))",
        "for _, deny in ipairs({ {}, { 'io' }, { 'io', 'os', 'io' } }) do
           context.create({ file = here .. '/child.lua', deny = deny })
           print(select(2, context.recv(0)))
         end",
    );
    assert_eq!(done.succeeded().stdout, "true\t2\t-1\nfalse\t3\t-1\nfalse\t4\t-1\n");
}

#[test]
fn options_of_create_are_named_if_they_are_wrong_or_unknown() {
    assert_refused(
        "context.create",
        &[
            ("{}", &["'file' of 'create'", "file name expected, got nil"]),
            (
                "{ 'child.lua' }",
                &["#1 to 'create'", "no option named number 1", "; there are deny, file, "],
            ),
            ("{ file = 'x', memry = 1 }", &["no option named string \"memry\"", "memory, name"]),
            ("{ file = 'x', [true] = 1 }", &["no option named boolean true"]),
            ("{ file = 5 }", &["'file'", "file name expected, got number 5"]),
            ("{ file = 'x', name = {} }", &["'name'", "string of 1 to 253 bytes", "table"]),
            ("{ file = 'x', name = ('n'):rep(254) }", &["'name'", "of 1 to 253", "254 bytes"]),
            ("{ file = 'x', name = '' }", &["'name'", "of 1 to 253", "got string \"\""]),
            (
                "{ file = 'x', mailbox = '5' }",
                &["'mailbox'", "whole number from 1", "string \"5\""],
            ),
            ("{ file = 'x', queries = 0 }", &["'queries'", "from 1", "number 0"]),
            ("{ file = 'x', memory = 0/0 }", &["'memory'", "from 1", "nan"]),
            ("{ file = 'x', turn_limit = -1 }", &["'turn_limit'", "seconds above 0", "-1"]),
            ("{ file = 'x', worker = 1e9 }", &["'worker'", "got number 1000000000"]),
        ],
    );
}

#[test]
fn options_of_a_supervisor_and_its_children_likewise() {
    assert_refused(
        "require('supervisor').start",
        &[
            ("nil", &["#1 to 'start'", "table expected, got nil"]),
            ("{}", &["no children"]),
            (
                "{ intensty = 100 }",
                &["no option named string \"intensty\"", "'intensity', 'period'"],
            ),
            ("{ { 'x' }, [true] = 1 }", &["no option named boolean true"]),
            ("{ { 'x' }, [2.5] = { 'y' } }", &["no option named number 2.5"]),
            ("{ { 'x' }, nil, { 'y' } }", &["bad child 2 of", "table expected, got nil"]),
            ("{ 'x.lua' }", &["bad child 1 of", "table expected, got string \"x.lua\""]),
            ("{ { 'x' }, {} }", &["bad child 2 of", "file name", "got nil"]),
            ("{ { 5 } }", &["bad child 1 of", "file name", "got number 5"]),
            (
                "{ { 'x', restrt = 'x' } }",
                &["child 1", "no option named string \"restrt\"", "'restart'"],
            ),
            (
                "{ { 'x', restart = 'often' } }",
                &["bad restart of child 1 of", "\"transient\"", "often"],
            ),
            ("{ { 'x', restart = 5 } }", &["bad restart of child 1 of", "got number 5"]),
            ("{ { 'x', 1, 2, n = 1 } }", &["bad n of child 1 of", "from 3 to 1000", "number 1"]),
            ("{ { { file = 'x', deny = { io = 1 } } } }", &["deny of child 1 of", "\"io\""]),
            (
                "{ { { file = 'x', memry = 1 } } }",
                &["options of child 1 of", "\"memry\"", "memory, name"],
            ),
            ("{ { { name = 'x' } } }", &["bad file of child 1 of", "file name expected, got nil"]),
            ("{ { 'x' }, strategy = 'none' }", &["'strategy'", "\"one_for_all\"", "\"none\""]),
            ("{ { 'x' }, intensity = 'often' }", &["'intensity'", "restarts", "\"often\""]),
            ("{ { 'x' }, intensity = 0/0 }", &["'intensity'", "nan"]),
            ("{ { 'x' }, period = 0 }", &["'period'", "seconds above 0", "number 0"]),
            ("{ { 'x' }, on_exit = 'x' }", &["'on_exit'", "function expected, got string \"x\""]),
            ("{ { 'x' }, on_finish = {} }", &["'on_finish'", "function expected, got table"]),
            // Children that were started before it turned out are ended.
            (
                "{ { 'none.lua' }, { 'x', { f = print } } }",
                &["#2 of child 2 to 'start'", "value.f is a function"],
            ),
        ],
    );
}

#[test]
fn a_supervisors_callbacks_may_fail() {
    // Whichever of them fails, and at whichever call: children are started again, and it ends.
    for (on_exit, on_finish, expected) in [
        ("error('x')", "print('finish', ...)", "finish\tintensity\t4 restarts in 5 s\n"),
        ("error({})", "print('finish', ...)", "finish\tintensity\t4 restarts in 5 s\n"),
        ("timer.sleep(0.001) error('x')", "print(...)", "intensity\t4 restarts in 5 s\n"),
        ("print((...))", "error('x')", "1\n1\n1\n1\n"),
        ("context.wait(0)", "print((...))", "intensity\n"),
    ] {
        let main = format!(
            "require('supervisor').start {{
               {{ here .. '/child.lua' }},
               on_exit = function(...) {on_exit} end,
               on_finish = function(...) {on_finish} end,
             }}"
        );
        let done = run_with("error('child fails', 0)", &main).succeeded();
        assert_eq!(done.stdout, expected, "{on_exit}, {on_finish}");
    }
}

#[test]
fn a_failing_callback_of_a_supervisor_is_logged_with_its_place() {
    let folder = Folder::new();
    let child = folder.write("child.lua", "context.destroy()");
    let main = folder.write(
        "main.lua",
        format!(
            "require('supervisor').start {{ {{ '{}', restart = 'temporary' }},
               on_exit = function() error('in on_exit') end,
               on_finish = function() error('in on_finish') end }}",
            child.display()
        ),
    );
    let done = run(node_lua().arg(main)).succeeded();
    for text in ["main.lua:2: in on_exit", "main.lua:3: in on_finish"] {
        assert_eq!(done.stderr.matches(text).count(), 1, "{done}");
    }
    assert!(done.stderr.contains("stack traceback"), "{done}");
    assert!(!done.stderr.contains("[node-lua]"), "{done}");
}

#[test]
fn one_failing_callback_does_not_stop_the_others() {
    let done = run_with(
        "for i = 1, 3 do context.recv(context.parent()) end", // so that all are asked of a live one
        "local count = {}
         local function fail(what, ...)
           count[what] = (count[what] or 0) + 1
           error(what)
         end
         local child = context.create(here .. '/child.lua')
         for i = 1, 3 do
           context.monitor(child, function() fail('monitor') end)
           context.wait(child, function() fail('wait') end)
           context.query(child, i, function() fail('query') end)
           context.subscribe(i == 1 and '>' or i == 2 and '*' or 't', function() fail('topic') end)
           timer.timeout(0.001, function() fail('timer') end)
           context.run(fail, 'run')
         end
         context.monitor(999, function() fail('gone') end)
         context.monitor(999, function() fail('gone') end)
         context.publish('t', 1) context.publish('t', 2)
         for i = 1, 3 do context.send(context.self(), i) end
         context.recv(context.self(), function() fail('recv') end)
         context.wait(child)
         local all = { 'monitor', 3, 'wait', 3, 'query', 3, 'topic', 6, 'timer', 3, 'run', 3,
           'gone', 2, 'recv', 3 }
         for i = 1, #all, 2 do
           while (count[all[i]] or 0) < all[i + 1] do timer.sleep(0.001) end
         end
         for i = 1, #all, 2 do print(all[i], count[all[i]]) end
         os.exit(0)",
    );
    assert_eq!(
        done.succeeded().stdout,
        "monitor\t3\nwait\t3\nquery\t3\ntopic\t6\ntimer\t3\nrun\t3\ngone\t2\nrecv\t3\n"
    );
}

#[test]
fn what_cannot_be_sent_is_named_with_its_place_and_the_remedy() {
    let main = "local me = context.self()
         local function try(f, ...) print((select(2, pcall(f, ...)))) end
         local value = { handlers = { 1, 2, print } }
         try(function() context.send(me, value) end)
         try(function() context.query(me, value) end)
         try(function() context.reply(me, 1, value) end)
         try(function() context.create('x.lua', 1, value) end)
         try(function() context.publish('t', value) end)
         try(function() context.send(me, print) end)
         try(function() context.send(me, { ['a b'] = { io.stdout } }) end)
         try(function() context.send(me, { [print] = 1 }) end)";
    let done = run_with("", main).succeeded();
    let inside = "value.handlers[3] is a function; functions stay in their context: send the name";
    let expected = [
        ("#2 to 'send'", inside),
        ("#2 to 'query'", inside),
        ("#3 to 'reply'", inside),
        ("#3 to 'create'", inside),
        ("#2 to 'publish'", inside),
        ("#2 to 'send'", "value is a function; "),
        ("#2 to 'send'", "value[\"a b\"][1] is userdata; only buffers travel"),
        ("#2 to 'send'", "value has a function as a key; keys are strings, numbers and booleans"),
    ];
    assert_eq!(done.stdout.lines().count(), expected.len(), "{done}");
    for ((line, (argument, what)), number) in done.stdout.lines().zip(expected).zip(5..) {
        assert!(line.contains(&format!("main.lua:{number}: bad argument {argument}")), "{line}");
        assert!(line.contains(&format!("transfer data type not supported: {what}")), "{line}");
    }
}

/// It may fail before its creator goes on.
#[test]
fn a_context_has_its_name_from_the_beginning() {
    let (_folder, mut command) = beside(
        &[("child.lua", "error('fails')")],
        "for i = 1, 300 do context.create({ file = here .. '/child.lua', name = 'named' }) end",
    );
    let done = run(command.args(["--workers", "4"])).succeeded();
    let lines: Vec<&str> = done.stderr.lines().filter(|line| line.contains("fails")).collect();
    assert_eq!(lines.len(), 300, "{done}");
    assert!(lines.iter().all(|line| line.contains("(named)")), "{done}");
}
