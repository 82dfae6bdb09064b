//! Names that contexts answer under, topics, the list of all contexts, and `context.check`.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use support::{Done, Folder, beside, node_lua, run};

/// Runs `main` beside the other scripts; `here` is their folder.
fn run_with(scripts: &[(&str, &str)], main: &str) -> Done {
    let (_folder, mut command) = beside(scripts, main);
    run(command.env("RUST_LOG", "off"))
}

#[track_caller]
fn assert_prints(scripts: &[(&str, &str)], main: &str, expected: &str) {
    let done = run_with(scripts, main).succeeded();
    assert_eq!(done.stdout, expected, "{done}");
}

/// Answers queries with its argument and the question, under the name "db".
const DB: (&str, &str) = (
    "db.lua",
    "local id = ...
     print(context.register('db', { shared = id ~= nil }))
     context.recv(0, function(_, value, from, session)
       if value == 'end' then return context.destroy() end
       context.reply(from, session, tostring(id) .. value)
     end)
     context.send(context.parent(), 'ready')",
);

#[test]
fn a_name_stands_for_the_handle_of_who_answers_under_it() {
    assert_prints(
        &[DB],
        "local h = context.create(here .. '/db.lua')
         context.recv(h)
         print(context.find('db') == h, context.stat('db').mailbox)
         print(context.query('db', '!', 30))
         context.query('db', '?', 30, function(...) print(...) context.send(context.self(), 1) end)
         context.recv(context.self())
         print(context.register('db'))
         print(context.register('db', { shared = true }), context.unregister('db'))
         print(context.monitor('db', function(who, reason) print(who, reason) end))
         context.wait('db', function(...) print(...) end)
         print(context.send('db', 'end'))
         print(context.wait('db'))
         print(context.find('db'), context.register('db'), context.find('db') == context.self())",
        "true\ntrue\t0\ntrue\tnil!\ntrue\tnil?\tdb\t?\t30\nfalse\t230\nfalse\tfalse\n\
         true\ntrue\ntrue\t0\tdb\ntrue\t0\nnil\ttrue\ttrue\ndb\tnormal\n",
    );
}

#[test]
fn nobody_under_a_name_is_told_at_once() {
    assert_prints(
        &[],
        "print((pcall(context.send, 'nobody', 1)), context.register('somebody'))
         print(context.send('nobody', 1))
         print(context.query('nobody', 1))
         print(context.query('nobody', 1, 5, print))
         print((pcall(context.wait, 'nobody')))
         print(context.monitor('nobody', print))
         print(context.stat('nobody'), context.find('nobody'), context.find('12'))
         -- Text that reads as a number is a handle still.
         print(context.send(tostring(context.self()), 'self'), (select(2, context.recv(0))))",
        "false\ttrue\nfalse\t205\nfalse\t205\nfalse\t205\nfalse\nfalse\t205\nnil\tnil\tnil\n\
         true\tself\n",
    );
}

#[test]
fn who_shares_a_name_is_asked_in_turn() {
    assert_prints(
        &[DB],
        "local all = {}
         for i = 1, 3 do
           all[i] = context.create(here .. '/db.lua', i)
           context.recv(all[i])
         end
         local function ask()
           local answers = {}
           for i = 1, 6 do answers[i] = select(2, context.query('db', '', 30)) end
           print(table.concat(answers, ' '))
         end
         ask()
         context.destroy(all[2])
         context.wait(all[2])
         ask()
         print(context.find('db') == all[1], context.register('db'))
         context.destroy(all[1]) context.wait(all[1])
         context.destroy(all[3]) context.wait(all[3])
         print(context.query('db', ''))",
        "true\ntrue\ntrue\n1 2 3 1 2 3\n1 3 1 3 1 3\ntrue\tfalse\t230\nfalse\t205\n",
    );
}

#[test]
fn a_shared_name_has_who_has_room() {
    assert_prints(
        &[(
            "full.lua",
            "context.register('pool', { shared = true })
             context.send(context.parent(), 'ready')
             context.recv(context.self())",
        )],
        "for i = 1, 2 do
           context.create({ file = here .. '/full.lua', mailbox = 1 + i })
           context.recv(0)
         end
         -- Neither receives any of it.
         local sent = 0
         while context.send('pool', { 'text' }) do sent = sent + 1 end
         print(sent, context.send('pool', 1))
         os.exit(0)",
        "5\tfalse\t209\n",
    );
}

#[test]
fn names_are_checked_and_bounded() {
    let done = run_with(
        &[],
        "local function try(...) print(select(2, pcall(context.register, ...))) end
         try(5) try('') try('12') try('0x10') try(('x'):rep(254)) try('a', 5)
         try('a', { share = true }) try('a', { shared = 1 })
         print(select(2, pcall(context.unregister, {})), select(2, pcall(context.find, 5)))
         print(context.register(('x'):rep(253)), context.register('a\\0b'), context.find('a\\0b'))
         local count = 2
         while context.register('n' .. count) do count = count + 1 end
         print(count, context.register('one more'))
         print(context.unregister('n5'), context.unregister('n5'), context.register('one more'))
         print(context.strerror(230), context.strerror(232))",
    );
    let stdout = done.succeeded().stdout;
    for (line, part) in stdout.lines().zip([
        "#1 to 'register' (name of 1 to 253 bytes that is no number expected, got number",
        "#1 to 'register' (name of 1 to 253 bytes",
        "#1 to 'register' (name of 1 to 253 bytes",
        "#1 to 'register' (name of 1 to 253 bytes",
        "#1 to 'register' (name of 1 to 253 bytes",
        "#2 to 'register' (table of options expected, got number",
        "#2 to 'register' (no option named string \"share\"; there are shared)",
        "'shared' of 'register' (boolean expected, got number 1)",
        "#1 to 'unregister'",
        "true\ttrue\t1",
        "1024\tfalse\t232",
        "true\tfalse\ttrue",
        "another context answers under this name\ttoo many names",
    ]) {
        assert!(line.contains(part), "{line:?}: {part:?}");
        assert_eq!(line.contains("bad "), line.contains("main.lua:"), "{line:?}");
    }
    assert_eq!(stdout.lines().count(), 13, "{stdout}");
}

#[test]
fn names_end_with_their_contexts_and_lead_nowhere_else() {
    // Contexts come and go under one name: what is sent to it reaches one that lives, or nobody.
    assert_prints(
        &[(
            "brief.lua",
            "context.register('brief', { shared = true })
             context.recv(0, function(_, value, from, session)
               context.reply(from, session, value)
               context.destroy()
             end)
             context.send(context.parent(), 'ready')",
        )],
        "local seen = {}
         for i = 1, 200 do
           context.create(here .. '/brief.lua')
           context.recv(0)
           local ok, value = context.query('brief', i, 30)
           seen[ok and value == i and 'answered' or tostring(value)] = true
         end
         for why in pairs(seen) do print(why) end
         while context.find('brief') do context.wait('brief') end
         print(context.send('brief', 1))",
        "answered\nfalse\t205\n",
    );
}

#[test]
fn what_is_published_reaches_all_who_subscribe() {
    assert_prints(
        &[(
            "listener.lua",
            "context.subscribe((...), function(value, topic, from)
               context.send(context.parent(), { topic, value.n, tostring(value.bytes), from })
             end)
             context.send(context.parent(), 'ready')",
        )],
        "for i, topic in ipairs({ 'news.*', 'news.>', '*.sport.>', 'news.sport', '>', 'other' }) do
           context.create(here .. '/listener.lua', topic)
           context.recv(0)
         end
         local function publish(topic)
           local _, count = context.publish(topic, { n = #topic, bytes = buffer.new('bytes') })
           for i = 1, count do
             local _, got = context.recv(0)
             assert(got[1] == topic and got[2] == #topic and got[3] == 'bytes')
             assert(got[4] == context.self())
           end
           return count
         end
         print(publish('news'), publish('news.sport'), publish('news.sport.a'))
         print(publish('x.sport.b'))
         print(publish('other'), publish('nothing'))
         print(context.publish('news', 1))
         os.exit(0)",
        "1\t4\t3\n2\n2\t1\ntrue\t1\n",
    );
}

#[test]
fn a_subscription_goes_on_until_it_is_ended() {
    assert_prints(
        &[],
        "local function wait() context.send(context.self(), 1) context.recv(context.self()) end
         print(context.subscribe('a', function(value) print('first', value) error('fails') end))
         context.publish('a', 1) context.publish('a', 2) wait()
         -- A second callback replaces the first; one may wait, and end its own subscription.
         print(context.subscribe('a', function(value, topic)
           timer.sleep(0.001)
           print('second', value, topic, context.unsubscribe('a'))
           context.send(context.self(), 'done')
         end))
         print(context.subscribe('*', function(value) print('any', value) end))
         print(context.publish('a', nil))
         context.recv(context.self())
         print(context.publish('a', false), context.unsubscribe('a'), context.unsubscribe('*'))
         -- What was on its way when the subscription ended is not told of any more.
         print(context.publish('a', 5))
         wait()",
        "true\nfirst\t1\nfirst\t2\ntrue\ntrue\ntrue\t2\nany\tnil\nsecond\tnil\ta\ttrue\n\
         true\tfalse\ttrue\ntrue\t0\n",
    );
}

#[test]
fn a_subscription_keeps_its_context_until_its_end() {
    assert_prints(
        &[(
            "one.lua",
            "context.subscribe('stop', function() context.unsubscribe('stop') end)
             context.send(context.parent(), 'ready')",
        )],
        "local one, other = context.create(here .. '/one.lua'), context.create(here .. '/one.lua')
         context.recv(one) context.recv(other)
         context.destroy(other)
         -- It may be gone by now.
         local ended, code = context.wait(other)
         print(ended or code == 205, context.wait(one, 0.01))
         print(context.publish('stop', true))
         print(context.wait(one))
         print(context.publish('stop', true))",
        "true\tfalse\t208\ntrue\t1\ntrue\t0\ntrue\t0\n",
    );
}

#[test]
fn a_full_mailbox_misses_what_is_published_and_counts_it() {
    // While it runs, nothing of its own mailbox is taken.
    assert_prints(
        &[(
            "full.lua",
            "local count = 0
             context.subscribe('t', function(value) count = count + value end)
             for i = 1, 10 do assert(select(3, context.publish('t', i)) == nil) end
             print(context.publish('t', 11))
             print(context.publish('t', 12))
             print(context.stat().missed, context.stat().mailbox)
             context.recv(context.parent(), function() print(count) context.destroy() end)
             context.send(context.parent(), 'ready')",
        )],
        "context.subscribe('t', function() end)
         local full = context.create({ file = here .. '/full.lua', mailbox = 10 })
         context.recv(full)
         context.send(full, 'go')
         context.wait(full)
         print(context.stat().missed)
         os.exit(0)",
        "true\t1\t1\ntrue\t1\t1\n2\t10\n55\n0\n",
    );
}

#[test]
fn topics_are_checked() {
    let done = run_with(
        &[],
        "local function try(call, ...) print(select(2, pcall(context[call], ...))) end
         try('publish', 'a.*', 1) try('publish', '>', 1) try('publish', 'a b', 1)
         try('publish', 'a..b', 1) try('publish', '', 1) try('publish', 5, 1) try('publish', 'a')
         try('publish', 'a', 1, 2) try('publish', 'a', { f = print })
         try('subscribe', 'a.>.b', print) try('subscribe', 'a*', print)
         try('subscribe', 'a.', print)
         try('subscribe', ('x'):rep(254), print) try('subscribe', 'a', 5)
         try('subscribe', nil, print)
         try('unsubscribe', 7)
         local count = 0
         while context.subscribe('t.' .. count, print) do count = count + 1 end
         print(count, context.subscribe('>', print))
         os.exit(0)",
    );
    let stdout = done.succeeded().stdout;
    for (line, part) in stdout.lines().zip([
        "#1 to 'publish' (topic without '*' and '>', which are for subscribe expected",
        "#1 to 'publish' (topic without '*' and '>'",
        "#1 to 'publish' (topic without spaces and control characters expected",
        "#1 to 'publish' (topic without an empty word between its dots expected",
        "#1 to 'publish' (topic of 1 to 253 bytes expected",
        "#1 to 'publish' (topic expected, got number",
        "#2 to 'publish' (value expected, got no value)",
        "#3 to 'publish' (no more arguments expected, got ",
        "#2 to 'publish' (transfer data type not supported: value.f is a function; ",
        "#1 to 'subscribe' (topic with '*' only as a whole word, '>' only as the last one",
        "#1 to 'subscribe' (topic with '*' only as a whole word",
        "#1 to 'subscribe' (topic without an empty word",
        "#1 to 'subscribe' (topic of 1 to 253 bytes expected",
        "#2 to 'subscribe' (function expected, got number",
        "#1 to 'subscribe' (topic expected, got nil",
        "#1 to 'unsubscribe' (topic expected, got number",
        "4096\tfalse\t232",
    ]) {
        assert!(line.contains(part), "{line:?}: {part:?}");
        assert_eq!(line.contains("bad "), line.contains("main.lua:"), "{line:?}");
    }
    assert_eq!(stdout.lines().count(), 17, "{stdout}");
}

#[test]
fn the_list_has_every_context() {
    assert_prints(
        &[(
            "child.lua",
            "context.name('child ' .. (...))
             context.recv(0, function(_, what, from, session)
               context.reply(from, session, #context.list())
             end)
             context.send(context.parent(), 'ready')",
        )],
        "local a = context.create(here .. '/child.lua', 'a')
         local b = context.create({ file = here .. '/child.lua', deny = { 'io' } }, 'b')
         context.recv(a) context.recv(b)
         local function show()
           for _, one in ipairs(context.list()) do
             print(one.handle, one.name, one.parent, one.state)
           end
         end
         repeat
           timer.sleep(0.001)
           local all = context.list()
         until all[2].state == 'waiting' and all[3].state == 'waiting'
         show()
         -- Who is confined sees itself and what it has created.
         print((select(2, context.query(a, 'list'))), (select(2, context.query(b, 'list'))))
         context.destroy(a) context.wait(a)
         repeat timer.sleep(0.001) until context.list()[2].state == 'waiting'
         show()
         os.exit(0)",
        "1\tnil\tnil\trunning\n2\tchild a\t1\twaiting\n3\tchild b\t1\twaiting\n3\t1\n\
         1\tnil\tnil\trunning\n3\tchild b\t1\twaiting\n",
    );
}

#[test]
fn check_returns_what_follows_or_raises_the_text() {
    let done = run_with(
        &[],
        "local check = context.check
         print(check(true), check(true, nil, 3), select('#', check(true, 1, nil)))
         local function one(...) return (check(...)) end
         local function try(...) print(select(2, pcall(one, ...))) end
         try(false, 208) try(false, 220, 'the peer hung up') try(false, 208, 0, -1) try(false, 9999)
         try(nil, 'no such thing') try(false, 'text') try(5) try() try('true') try(false) try(nil)
         local ok, text = pcall(function()
           check(context.recv(0, 0.001))
         end)
         print(text)",
    );
    let expected = [
        "3\t2",
        "main.lua:4: timeout",
        "main.lua:4: the peer hung up",
        "main.lua:4: timeout",
        "main.lua:4: unknown error 9999",
        "main.lua:4: no such thing",
        "main.lua:4: text",
        "#1 to 'check' (true or false, as a call has returned it, expected, got number 5)",
        "#1 to 'check'",
        "#1 to 'check' (true or false, as a call has returned it, expected, got string \"true\")",
        "#2 to 'check' (code of the failure expected, got nil)",
        "#1 to 'check'",
        "main.lua:9: timeout",
    ];
    let stdout = done.succeeded().stdout;
    assert_eq!(stdout.lines().count(), expected.len(), "{stdout}");
    for (line, part) in stdout.lines().zip(expected).skip(1) {
        assert!(line.contains(part) && line.contains("main.lua:"), "{line:?}: {part:?}");
    }
}

#[test]
fn a_simulation_with_names_and_topics_repeats() {
    let folder = Folder::new();
    let worker = folder.write(
        "worker.lua",
        "local id = ...
         context.register('pool', { shared = true })
         context.subscribe('job.*', function(value, topic)
           timer.sleep(math.random() / 100)
           context.publish('done.' .. id, topic .. value)
         end)
         context.recv(0, function(_, value, from, session) context.reply(from, session, id) end)
         context.send(context.parent(), 'ready')",
    );
    let main = folder.write(
        "main.lua",
        format!(
            "for i = 1, 5 do context.create('{}', i) end
             for i = 1, 5 do context.recv(0) end
             context.subscribe('done.>', function(value, topic, from) print(topic, value, from) end)
             for i = 1, 4 do context.run(function() print(context.query('pool', i)) end) end
             for i = 1, 4 do print(context.publish('job.' .. i, i)) end
             timer.sleep(1)
             for _, one in ipairs(context.list()) do print(one.handle, one.parent, one.state) end
             os.exit(0)",
            worker.display()
        ),
    );
    let simulate = |seed: &str| run(node_lua().args(["--simulate", seed]).arg(&main)).succeeded();
    let outputs: Vec<String> = ["1", "2", "3", "4"].map(|seed| simulate(seed).stdout).into();
    for (output, seed) in outputs.iter().zip(["1", "2", "3", "4"]) {
        assert_eq!(output.matches("done.").count(), 20, "{output}");
        assert_eq!(*output, simulate(seed).stdout);
    }
    assert!(outputs.iter().any(|output| *output != outputs[0]));
}
