//! Who asks gets an answer: at whatever point either side of an exchange ends, nobody hangs.
//! The cases are enumerated by `tests/context_exchange/main.lua`.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::net::SocketAddr;

use socket2::{Domain, Socket, Type};
use support::{PATIENCE, node_lua, run_for};

#[test]
fn nobody_hangs_wherever_an_exchange_ends() {
    // A port that was free a moment ago may be another's by now.
    let deaf = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    deaf.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let port = deaf.local_addr().unwrap().as_socket().unwrap().port().to_string();
    let mut command = node_lua();
    command.env("RUST_LOG", "off").args([
        "--workers",
        "2",
        "tests/context_exchange/main.lua",
        &port,
    ]);
    let done = run_for(&mut command, 2 * PATIENCE);
    assert_eq!(done.stdout, "227 cases\n", "{done}");
    done.succeeded();
}

/// Whatever the callback did before it failed, and whenever it got the query.
#[test]
fn who_asks_a_callback_that_fails_is_told() {
    const SCRIPT: &str = r#"
        local function answer(_, how, from, session)
          if how == 'at once' then error('as told') end
          if how == 'stay' then return timer.timeout(0.05, from, session, 'late', context.reply) end
          if how == 'answer first' then context.reply(from, session, 'answered') end
          if how == 'in a coroutine' then
            return coroutine.wrap(function() timer.sleep(0) error('as told') end)()
          end
          timer.sleep(0)
          if how == 'twice' then context.query(context.parent(), 'well?') end
          error({})
        end
        if ... == 'other' then
          -- Queries that have come before somebody receives them.
          timer.sleep(0.05)
          return context.recv(0, answer)
        end
        local file = arg[0]
        context.recv(0, function(_, value, from, session) context.reply(from, session, value) end)
        local other = context.create(file, 'other')
        local hows = { 'at once', 'after a wait', 'answer first', 'stay', 'twice' }
        hows[#hows + 1] = 'in a coroutine'
        local waiting = 0
        local function ask_all(round)
          for _, how in ipairs(hows) do
            waiting = waiting + 1
            context.query(other, how, 50, function(ok, value)
              print(round, how, ok, value)
              waiting = waiting - 1
            end)
          end
          while waiting > 0 do timer.sleep(0.001) end
        end
        ask_all(1)
        ask_all(2)
        for _, how in ipairs(hows) do print(3, how, context.query(other, how, 50)) end
        -- It has not ended.
        print(context.query(other, 'stay'))
        context.recv(0, function() error('as told') end)
        print(context.query(context.self(), 'me', 50))
        context.destroy(other)
        context.destroy()"#;
    let folder = support::Folder::new();
    let main = folder.write("main.lua", SCRIPT);
    let done = support::run(support::node_lua().arg(main));
    let mut lines: Vec<&str> = done.stdout.lines().collect();
    lines.sort_unstable();
    let mut wanted = vec!["false\t207".to_owned(), "true\tlate".to_owned()];
    for round in 1..=3 {
        for how in ["at once", "after a wait", "twice", "in a coroutine"] {
            wanted.push(format!("{round}\t{how}\tfalse\t207"));
        }
        wanted.push(format!("{round}\tanswer first\ttrue\tanswered"));
        wanted.push(format!("{round}\tstay\ttrue\tlate"));
    }
    wanted.sort_unstable();
    assert_eq!(lines, wanted, "{done}");
}

#[test]
fn queries_that_a_coroutine_has_received_get_207_when_it_fails() {
    const SCRIPT: &str = r#"
        local mode = ...
        local function take()
          local _, value, from, session = context.recv(0)
          return from, session, value
        end
        local modes = {
          fails = function() take() error('as told') end,
          waits = function() take() timer.sleep(0) error('as told') end,
          mailed = function() timer.sleep(0.02) take() error('as told') end,
          wrapped = function()
            coroutine.wrap(function() take() timer.sleep(0) error('as told') end)()
          end,
          second = function()
            local from, session = take()
            context.reply(from, session, 'first')
            take()
            error('as told')
          end,
          both = function() take() take() error('as told') end,
          ['both and a wait'] = function() take() timer.sleep(0) take() error('as told') end,
          many = function()
            for _ = 1, 50 do take() end
            timer.sleep(0)
            for _ = 1, 10 do take() end
            error('as told')
          end,
          answered = function()
            context.reply(take())
            error('as told')
          end,
          ['handed on'] = function()
            local from, session = take()
            timer.timeout(0.05, from, session, 'late', context.reply)
            -- It returns, and what its root runs next fails.
            for _ = 1, 3 do context.run(error, 'as told') end
            timer.timeout(0, function() error('as told') end)
          end,
          caught = function()
            local from, session
            pcall(function() from, session = take() error('as told') end)
            timer.sleep(0)
            context.reply(from, session, 'caught')
          end,
        }
        if mode then
          -- It does not end.
          timer.loop(3600, 3600, function() end)
          local how, where = mode:match('^(.-)/(.*)$')
          if where == 'main' then modes[how]() end
          if where == 'coroutine' then context.run(modes[how]) end
          if where == 'callback' then timer.timeout(0, modes[how]) end
          return
        end
        local counts = { second = 2, both = 2, ['both and a wait'] = 2, many = 60 }
        local waiting = 0
        for how in pairs(modes) do
          for _, where in ipairs({ 'main', 'coroutine', 'callback' }) do
            local peer = context.create(arg[0], how .. '/' .. where)
            for i = 1, counts[how] or 1 do
              waiting = waiting + 1
              context.query(peer, 'value', 50, function(ok, value)
                waiting = waiting - 1
                if i <= 2 or value ~= 207 then print(how, where, i, ok, value) end
              end)
            end
          end
        end
        while waiting > 0 do timer.sleep(0.001) end
        context.exit()"#;
    let folder = support::Folder::new();
    let main = folder.write("main.lua", SCRIPT);
    let done = support::run(support::node_lua().env("RUST_LOG", "off").arg(main));
    let mut lines: Vec<&str> = done.stdout.lines().collect();
    lines.sort_unstable();
    let mut wanted = Vec::new();
    for place in ["main", "coroutine", "callback"] {
        for how in ["fails", "waits", "mailed", "wrapped", "both", "both and a wait", "many"] {
            wanted.push(format!("{how}\t{place}\t1\tfalse\t207"));
        }
        for how in ["second", "both", "both and a wait", "many"] {
            wanted.push(format!("{how}\t{place}\t2\tfalse\t207"));
        }
        wanted.push(format!("second\t{place}\t1\ttrue\tfirst"));
        wanted.push(format!("answered\t{place}\t1\ttrue\tvalue"));
        wanted.push(format!("handed on\t{place}\t1\ttrue\tlate"));
        wanted.push(format!("caught\t{place}\t1\ttrue\tcaught"));
    }
    wanted.sort_unstable();
    assert_eq!(lines, wanted, "{done}");
}
