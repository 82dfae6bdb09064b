//! Topics of several processes over a real nats-server. Where there is no nats-server nothing is
//! checked.

#![cfg(feature = "cluster")]
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/nats.rs"]
mod nats;
mod support;

use nats::{Nats, assert_prints};
use support::PATIENCE;

#[test]
fn topics_reach_all_processes() {
    let Some(nats) = Nats::start() else { return };
    let listen = "
        local count = 0
        local function show(name)
          return function(value, topic, from)
            print(name, topic, value.n or value, from > 0)
            count = count + 1
            if count == 5 then
              context.unsubscribe('game.*.x') context.unsubscribe('game.>')
            end
          end
        end
        context.subscribe('game.*.x', show('star'))
        context.subscribe('game.>', show('all'))
        context.register(context.node())
        print('ready')";
    let mut listeners = [nats.node("one", listen), nats.node("two", listen)];
    listeners.iter_mut().for_each(|one| assert_eq!(one.line(), "ready"));
    assert_prints(
        &nats,
        "wait_for(3)
         for _, name in ipairs { 'one', 'two' } do
           while not context.find(name) do timer.sleep(0.01) end
         end
         -- The server knows the subscriptions by now: they were made before the names.
         context.subscribe('game.>', function(value, topic)
           print('own', topic, value.n or value)
         end)
         print(context.publish('game.a.x', { n = 1 }))
         print(context.publish('other.a.x', 2))
         print(context.publish('game.\\xff%\\xe4', { n = 3 }))
         print(context.publish('game.end.x', 'end'))
         timer.timeout(0.05, function() context.unsubscribe('game.>') end)",
        "true\t1\ntrue\t0\ntrue\t1\ntrue\t1\nown\tgame.a.x\t1\n\
         own\tgame.\u{fffd}%\u{fffd}\t3\nown\tgame.end.x\tend\n",
    );
    for one in listeners {
        let done = one.finish(PATIENCE).succeeded();
        let mut lines: Vec<_> = done.stdout.lines().collect();
        lines.sort_unstable();
        assert_eq!(
            lines,
            [
                "all\tgame.a.x\t1\ttrue",
                "all\tgame.end.x\tend\ttrue",
                "all\tgame.\u{fffd}%\u{fffd}\t3\ttrue",
                "star\tgame.a.x\t1\ttrue",
                "star\tgame.end.x\tend\ttrue",
            ]
        );
    }
}

/// What one context publishes comes in order, whatever the topics and the subscriptions.
#[test]
fn publications_to_several_topics_come_in_order() {
    let Some(nats) = Nats::start() else { return };
    let mut listener = nats.node(
        "listener",
        "local last, count = 0, 0
         for index, topic in ipairs { 'a', 'b', 'c.*', 'd.>', 'd.*' } do
           context.subscribe(topic, function(value)
             -- Two subscriptions fit the fourth.
             if value < last then print('after ' .. last .. ' came ' .. value) os.exit(1) end
             last, count = value, count + 1
             if count < 5000 then return end
             print('in order')
             os.exit(0)
           end)
         end
         context.register('listener')
         print('ready')",
    );
    assert_eq!(listener.line(), "ready");
    assert_prints(
        &nats,
        "while not context.find('listener') do timer.sleep(0.01) end
         local topics = { 'a', 'b', 'c.x', 'd.y' }
         for i = 1, 4000 do assert(context.publish(topics[i % 4 + 1], i)) end",
        "",
    );
    assert_eq!(listener.line(), "in order");
}

#[test]
fn a_name_is_there_once_its_holder_publishes() {
    let Some(nats) = Nats::start() else { return };
    let mut listener = nats.node(
        "listener",
        "local count = 0
         context.subscribe('here', function(name)
           if not context.find(name) then print(name .. ' is not there') os.exit(1) end
           count = count + 1
           if count == 1000 then print('all were there') os.exit(0) end
         end)
         context.register('listener')
         print('ready')",
    );
    assert_eq!(listener.line(), "ready");
    let mut talker = nats.node(
        "talker",
        "while not context.find('listener') do timer.sleep(0.01) end
         for i = 1, 1000 do
           context.register('holder ' .. i)
           context.publish('here', 'holder ' .. i)
           if i % 7 == 0 then timer.sleep(0) end
         end
         print('done') timer.sleep(3600)",
    );
    assert_eq!(talker.line(), "done");
    assert_eq!(listener.line(), "all were there");
}
