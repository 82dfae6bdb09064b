//! Several processes over a real nats-server: names, queries, topics, monitors, and what becomes of
//! them when a process, or the server, is killed. Where there is no nats-server nothing is checked.

#![cfg(feature = "cluster")]
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/nats.rs"]
mod nats;
mod support;

use std::time::{Duration, Instant};

use nats::{Nats, WAIT, assert_prints};
use support::{PATIENCE, Server, node_lua, run};

/// Answers under "store": with what it is asked, and some words mean more.
const STORE: &str = "
    context.register('store', { shared = true })
    context.recv(0, function(_, value, from, session)
      if value == 'fail' then error('as asked', 0) end
      if value == 'silent' then return print('asked') end
      if value == 'end' then return context.destroy('as asked') end
      if value == 'leave' then context.unregister('store') end
      if value == 'who' then value = context.node() end
      if value == 'large' then return print(context.reply(from, session, ('x'):rep(2^21))) end
      if session > 0 then return context.reply(from, session, value) end
      print(value)
    end)
    print('ready')";

fn store(nats: &Nats, name: &str) -> Server {
    let mut server = nats.node(name, STORE);
    assert_eq!(server.line(), "ready");
    server
}

#[test]
fn who_answers_under_a_name_is_found_in_other_processes() {
    let Some(nats) = Nats::start() else { return };
    let mut store = store(&nats, "one");
    assert_prints(
        &nats,
        "print(table.concat(context.nodes(), ' '), context.node())
         print(context.query('store', 'hello', 30))
         print(context.query('store', 'again', 30, function(...)
           print(...)
           print(context.send('store', 'message'))
           local h = context.find('store')
           print(context.query(h, 'by handle', 30))
           context.send(h, 'last')
         end) == true)",
        "asker one\tasker\ntrue\thello\ntrue\ntrue\tagain\tstore\tagain\t30\ntrue\n\
         true\tby handle\n",
    );
    assert_eq!([store.line(), store.line()], ["message", "last"]);
}

#[test]
fn what_tables_carry_arrives_as_it_was() {
    let Some(nats) = Nats::start() else { return };
    let _store = store(&nats, "one");
    assert_prints(
        &nats,
        "local t = { 1, 2.5, nil, 4, [true] = false, [-1] = 'minus', s = ('x'):rep(1000) }
         t.int, t.uint = -9007199254740993LL, 18446744073709551615ULL
         t.buf, t.same, t.self, t.empty = buffer.new(('y'):rep(5000)), { 1 }, t, {}
         t.again = t.same
         local _, r = context.query('store', t, 30)
         print(r[1], r[2], r[3], r[4], r[true], r[-1], #r.s, r.int, r.uint)
         print(#r.buf, r.buf:tostring() == t.buf:tostring(), r.same == r.again, r.self == r)
         local values = { 1, 'text', -1LL, 1ULL, true, 0/0, ('z'):rep(100000), buffer.new('b') }
         for _, value in ipairs(values) do
           local ok, back = context.query('store', value, 30)
           print(ok, type(back), back == value or #tostring(back))
         end
         print(context.query('store', nil, 30))",
        "1\t2.5\tnil\t4\tfalse\tminus\t1000\t-9007199254740993LL\t18446744073709551615ULL\n\
         5000\ttrue\ttrue\ttrue\n\
         true\tnumber\ttrue\ntrue\tstring\ttrue\ntrue\tcdata\ttrue\ntrue\tcdata\ttrue\n\
         true\tboolean\ttrue\ntrue\tnumber\t3\ntrue\tstring\ttrue\ntrue\tuserdata\ttrue\n\
         true\tnil\n",
    );
}

#[test]
fn failures_have_their_codes() {
    let Some(nats) = Nats::start() else { return };
    let mut store = store(&nats, "one");
    assert_prints(
        &nats,
        "local at = timer.now()
         print(context.query('nobody', 1, 30))
         print(context.send('nobody', 1))
         print(context.find('nobody'))
         print(context.monitor('nobody', print))
         print(timer.now() - at < 1)
         print(context.query('store', 'fail', 30))
         print(context.query('store', 'silent', 0.1))
         local ok, code, text = context.query('store', ('x'):rep(2^21), 30)
         print(ok, code, text:match('%d+ at most'), text:match('max_payload') ~= nil)
         ok, code, text = context.send('store', ('x'):rep(2^21))
         print(ok, code, text:match('%d+ at most'))
         ok, code, text = context.publish('t', ('x'):rep(2^21))
         print(ok, code, text:match('%d+ at most'))
         ok, code, text = context.query('store', 'large', 30)
         print(ok, code, text:match('%d+ at most'), text:match('max_payload') ~= nil)
         context.query('store', 'large', 30, function(...)
           local _, _, _, value, time, why = ...
           print(select('#', ...), value, time, why:match('too large'))
           context.query('store', 'large', function(...)
             print(select(4, ...), select(5, ...), (select(6, ...)):match('too large'))
             print(context.query('store', 'end', 30))
           end)
         end)
         print(context.wait('nobody'))
         context.wait('nobody', function(...) print('waited', ...) end)",
        "false\t205\nfalse\t205\nnil\nfalse\t205\ntrue\nfalse\t207\nfalse\t208\n\
         false\t206\t1048576 at most\ttrue\nfalse\t206\t1048576 at most\n\
         false\t206\t1048576 at most\nfalse\t206\t1048576 at most\ttrue\nfalse\t205\n\
         waited\tfalse\t205\tnobody\n\
         6\tlarge\t30\ttoo large\nlarge\tnil\ttoo large\nfalse\t207\n",
    );
    assert_eq!(store.line(), "asked");
    (0..3).for_each(|_| assert!(store.line().starts_with("false\t206\ttoo large")));
}

#[test]
fn of_several_who_share_a_name_the_nearest_are_asked() {
    let Some(nats) = Nats::start() else { return };
    let (_one, _two) = (store(&nats, "one"), store(&nats, "two"));
    assert_prints(
        &nats,
        "wait_for(3)
         local seen = {}
         repeat
           seen[select(2, ask('store', 'who', 30))] = true
         until seen.one and seen.two
         print('both')
         -- Here first, from now on.
         print(context.register('store', { shared = true }))
         context.recv(0, function(_, value, from, session) context.reply(from, session, 'here') end)
         for _ = 1, 4 do print(context.query('store', 'who', 30)) end
         context.unregister('store')
         print(select(2, context.query('store', 'who', 30)) ~= 'here')
         context.recv(0, nil)",
        "both\ntrue\ntrue\there\ntrue\there\ntrue\there\ntrue\there\ntrue\n",
    );
}

#[test]
fn the_end_of_the_last_holder_of_a_name_is_told() {
    let Some(nats) = Nats::start() else { return };
    let (one, two) = (store(&nats, "one"), store(&nats, "two"));
    let mut watcher = nats.node(
        "watcher",
        &[
            WAIT,
            "wait_for(3)
             while select(2, ask('store', 'who', 30)) ~= 'one' do end
             while select(2, ask('store', 'who', 30)) ~= 'two' do end
             print(context.monitor('store', function(name, reason, detail)
               print(name, reason, detail)
             end))
             context.wait('store', function(...) print('wait', ...) end)",
        ]
        .concat(),
    );
    assert_eq!(watcher.line(), "true");
    drop(one);
    // By force too: `two` still has the name, and nobody is told.
    let killed = nats.node("asker", &[WAIT, "print(ask('store', 'who', 30)) wait_for(3)"].concat());
    assert!(killed.finish(PATIENCE).succeeded().stdout.contains("two"));
    let at = Instant::now();
    two.signal("KILL");
    assert_eq!(watcher.line(), "wait\ttrue\t0\tstore");
    let line = watcher.line();
    assert!(line.starts_with("store\tgone\tnode two is gone"), "{line}");
    // 3 s, on a machine that has the time.
    assert!(at.elapsed() < Duration::from_secs(10), "{:?}", at.elapsed());
    drop(two);
    watcher.finish(PATIENCE).succeeded();
}

#[test]
fn a_context_that_sends_is_known_by_a_handle() {
    let Some(nats) = Nats::start() else { return };
    let mut server = nats.node(
        "server",
        "context.register('lobby')
         context.recv(0, function(_, value, from)
           print(value, context.send(from, 'welcome'))
           context.monitor(from, function(who, reason, detail)
             print(who == from, reason, detail, context.send(from, 1))
           end)
         end)
         print('ready')",
    );
    assert_eq!(server.line(), "ready");
    assert_prints(
        &nats,
        "context.send('lobby', 'hello')
         local _, text, from = context.recv(0)
         print(text, context.query(from, 'no answer', 0.05))
         context.destroy('done here')",
        "welcome\tfalse\t208\n",
    );
    assert_eq!(server.line(), "hello\ttrue");
    assert!(server.line().starts_with("no answer\ttrue"));
    for _ in 0..2 {
        assert_eq!(server.line(), "true\tkilled\tdone here\tfalse\t205");
    }
}

#[test]
fn what_a_killed_process_was_asked_is_answered_with_a_failure() {
    let Some(nats) = Nats::start() else { return };
    let mut store = store(&nats, "one");
    let mut asker = nats.node(
        "asker",
        &[
            WAIT,
            "for i = 1, 3 do
               context.run(function() print(ask('store', 'silent')) end)
             end
             print('asked')",
        ]
        .concat(),
    );
    assert_eq!(asker.line(), "asked");
    (0..3).for_each(|_| assert_eq!(store.line(), "asked"));
    store.signal("KILL");
    (0..3).for_each(|_| assert_eq!(asker.line(), "false\t207\tnil"));
    asker.finish(PATIENCE).succeeded();
}

#[test]
fn a_server_that_is_killed_and_comes_back() {
    let Some(mut nats) = Nats::start() else { return };
    let mut store = store(&nats, "one");
    let code = [
        WAIT,
        "context.subscribe('news', function(value)
           print('news', value)
           if value == 'later' then context.unsubscribe('news') end
         end)
         print(ask('store', 1))
         print(context.query('store', 'silent'))       -- lost with the server
         local ok, code, text
         repeat timer.sleep(0.01) ok, code, text = context.query('store', 2) until code == 231
         print(ok, code, text:match('the cluster is away') ~= nil)
         print((select(2, context.send('store', 3))))
         print(context.publish('news', 'here'))
         repeat timer.sleep(0.01) ok, code = context.query('store', 4, 5) until ok
         print(ok, code)
         context.register('asker')",
    ];
    let mut asker = nats.node("asker", &code.concat());
    assert_eq!(asker.line(), "true\t1\tnil");
    assert_eq!(store.line(), "asked");
    nats.kill();
    assert_eq!(asker.line(), "false\t207");
    assert_eq!(asker.line(), "false\t231\ttrue");
    assert_eq!(asker.line(), "231");
    assert_eq!([asker.line(), asker.line()], ["true\t1\t0\t231", "news\there"]);
    nats.restart();
    assert_eq!(asker.line(), "true\t4");
    // Subscriptions are there again, too.
    let code = "while not context.find('asker') do timer.sleep(0.01) end
        context.publish('news', 'later')";
    let _other = nats.node("other", code);
    assert_eq!(asker.line(), "news\tlater");
    asker.finish(PATIENCE).succeeded();
}

#[test]
fn processes_may_start_before_their_server() {
    let Some(mut nats) = Nats::start() else { return };
    nats.kill();
    let mut store = nats.node("one", STORE);
    assert_eq!(store.line(), "ready");
    let mut asker = nats.node(
        "asker",
        &[
            WAIT,
            "print(context.query('store', 1))
        print(ask('store', 'hello', 30))",
        ]
        .concat(),
    );
    assert!(asker.line().starts_with("false\t231\tthe cluster is away"));
    nats.restart();
    assert_eq!(asker.line(), "true\thello\tnil");
}

#[test]
fn a_server_that_stands_still_is_told_as_away() {
    let Some(nats) = Nats::start() else { return };
    let mut store = store(&nats, "one");
    let code = "print(ask('store', 1)) print(context.query('store', 'silent'))
        local ok, code
        repeat timer.sleep(0.01) ok, code = context.query('store', 2, 0.5) until code == 231
        print(ok, code)
        repeat timer.sleep(0.01) ok, code = context.query('store', 4, 5) until ok
        print(ok, code)";
    let mut asker = nats.node("asker", &[WAIT, code].concat());
    assert_eq!(asker.line(), "true\t1\tnil");
    assert_eq!(store.line(), "asked");
    nats.signal("STOP");
    assert_eq!(asker.line(), "false\t207");
    assert_eq!(asker.line(), "false\t231");
    nats.signal("CONT");
    assert_eq!(asker.line(), "true\t4");
}

#[test]
fn a_process_of_another_version_is_refused() {
    let Some(nats) = Nats::start() else { return };
    let mut store = nats.node("one", STORE);
    assert_eq!(store.line(), "ready");
    let head = [&[3][..], &0x1234_u64.to_le_bytes()].concat();
    nats.publish("node-lua.all", &[&head[..], b"whatever follows"].concat());
    nats.publish("node-lua.all", &head);
    // Neither is what cannot be read, nor what is cut off.
    nats.publish("node-lua.all", &[&[2][..], &7_u64.to_le_bytes(), &[99]].concat());
    nats.publish("node-lua.all", &[2, 2]);
    assert_prints(&nats, "print(context.query('store', 'hello', 30))", "true\thello\n");
    assert_prints(&nats, "print(context.send('store', 'end'))", "true\n");
    let done = store.finish(PATIENCE).succeeded();
    let told: Vec<_> = done.stderr.lines().filter(|line| line.contains("version")).collect();
    assert_eq!(told.len(), 1, "{done}");
    assert!(told[0].contains("0000000000001234 speaks version 3 of the protocol"), "{done}");
    assert!(done.stderr.contains("unknown tag 99"), "{done}");
}

#[test]
fn without_a_cluster_there_is_none() {
    let code = "print(context.node(), #context.nodes(), context.find('x'))";
    assert_eq!(run(node_lua().args(["-e", code])).succeeded().stdout, "nil\t0\tnil\n");
    for (flags, expected) in [
        (&["--cluster", "http://localhost:1"][..], "not nats://host:port"),
        (&["--cluster", "nats://localhost:1,"], "'': not nats://host:port"),
        (&["--cluster", "nats://"], "no host"),
        (&["--cluster", "nats://me:secret@host:bad"], "'nats://...@host:bad': "),
        (&["--cluster", "nats://127.0.0.1:1", "--cluster-creds", "Cargo.toml"], "nor the seed"),
        (&["--cluster", "nats://127.0.0.1:1", "--cluster-ca", "Cargo.toml"], "no certificate"),
        (&["--cluster", "nats://127.0.0.1:1", "--cluster-key", "x"], "needs --cluster-cert"),
        (&["--cluster", "nats://127.0.0.1:1", "--cluster-creds", "/nowhere"], "/nowhere: "),
        (&["--cluster-ca", "x"], "need --cluster"),
        (&["--node", ""], "not a name"),
    ] {
        let done = run(node_lua().args(flags).args(["-e", "print(1)"]));
        assert_ne!(done.code(), Some(0), "{done}");
        assert!(done.stderr.contains(expected) && done.stdout.is_empty(), "{done}");
    }
}

#[test]
fn a_context_without_the_network_does_not_reach_other_processes() {
    let Some(nats) = Nats::start() else { return };
    let _store = store(&nats, "one");
    let folder = support::Folder::new();
    let script = folder.write(
        "confined.lua",
        "print(context.query('store', 1, 30)) print(context.send('store', 1))
         print(context.find('store'), context.publish('topic', 1))",
    );
    assert_prints(
        &nats,
        &format!("context.create {{ file = '{}', deny = {{ 'network' }} }}", script.display()),
        "false\t205\nfalse\t205\nnil\ttrue\t0\n",
    );
}

#[test]
fn processes_end_in_order_and_are_missed_at_once() {
    let Some(nats) = Nats::start() else { return };
    let store = store(&nats, "one");
    let code = "wait_for(2) print('two') wait_for(1) print(context.query('store', 1))";
    let mut asker = nats.node("asker", &[WAIT, code].concat());
    assert_eq!(asker.line(), "two");
    store.signal("TERM");
    assert_eq!(asker.line(), "false\t205");
    assert_eq!(store.finish(PATIENCE).code(), Some(143));
}

/// What a process has sent arrives, however it ends but by force.
#[test]
fn what_was_sent_before_the_end_arrives() {
    let Some(nats) = Nats::start() else { return };
    for end in ["os.exit(7)", "context.exit(7)", "error('as asked')", "context.destroy()"] {
        let mut sink = nats.node(
            "sink",
            "context.register('sink')
             local count = 0
             context.recv(0, function(_, value)
               if value ~= 'end' then count = count + 1 return end
               print(count)
               context.destroy()
             end)
             print('ready')
             while #context.nodes() < 2 do timer.sleep(0.01) end
             while #context.nodes() > 1 do timer.sleep(0.01) end
             -- Behind what has come and waits.
             context.send(context.self(), 'end')",
        );
        assert_eq!(sink.line(), "ready");
        let code = "while not context.find('sink') do timer.sleep(0.01) end
            for i = 1, 30000 do assert(context.send('sink', i)) end ";
        run(&mut nats.command("sender", &[code, end].concat()));
        assert_eq!(sink.line(), "30000", "{end}");
    }
}

/// Lists of names, and of queries, are cut to what a server takes.
#[test]
fn servers_that_take_little_at_once_will_do() {
    let Some(nats) = Nats::with("max_payload: 16384") else { return };
    let mut server = nats.node(
        "server",
        "for i = 1, 1000 do context.register(('n'):rep(200) .. i) end
         context.recv(0, function(_, value, from, session)
           if session > 0 then context.reply(from, session, value) end
         end)
         print('ready')",
    );
    assert_eq!(server.line(), "ready");
    assert_prints(
        &nats,
        "local left, wrong = 1000, 0
         for i = 1, 1000 do
           context.run(function()
             local ok, value = ask(('n'):rep(200) .. i, ('x'):rep(1000), 30)
             if not ok or #value ~= 1000 then wrong = wrong + 1 end
             left = left - 1
             if left > 0 then return end
             print(wrong, context.send(('n'):rep(200) .. 1, ('x'):rep(16000)))
             local _, _, text = context.send(('n'):rep(200) .. 1, ('x'):rep(16384))
             print(text:match('takes %d+ at'))
           end)
         end",
        "0\ttrue\ntakes 16384 at\n",
    );
    let Some(nats) = Nats::with("max_payload: 1000") else { return };
    let code = "print(context.query('nobody', 1))";
    let done = run(&mut nats.command("asker", code)).succeeded();
    assert!(done.stdout.contains("max_payload of nats-server is 1000 bytes"), "{done}");
}

#[test]
fn a_flood_is_bounded_and_in_order() {
    let Some(nats) = Nats::start() else { return };
    let mut sink = nats.node(
        "sink",
        "context.register('sink')
         local last, count = 0, 0
         context.recv(0, function(_, value, from, session)
           if session > 0 then context.reply(from, session, count) return context.destroy() end
           assert(value > last, 'order')
           last, count = value, count + 1
         end)
         print('ready')",
    );
    assert_eq!(sink.line(), "ready");
    assert_prints(
        &nats,
        "while not context.find('sink') do timer.sleep(0.01) end
         for i = 1, 50000 do assert(context.send('sink', i)) end
         print(context.query('sink', 'end', 30))",
        "true\t50000\n",
    );
}
