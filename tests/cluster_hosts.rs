//! Three hosts, each a network of its own, and a fourth with the server: started in any order,
//! killed, cut off, and restarted one after the other under load. No answer is wrong, and none is
//! missing without a failure. Needs nats-server and the right to make networks; skipped otherwise.

#![cfg(feature = "cluster")]
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/nats.rs"]
mod nats;
mod support;

use std::process::Command;
use std::time::{Duration, Instant};

use nats::{Nats, within};
use support::{PATIENCE, Server, repository};

/// Networks on one switch, which is in the first of them; removed when dropped.
struct Hosts(Vec<String>);

fn ip(line: &str) -> bool {
    let done = Command::new("ip").args(line.split_whitespace()).output();
    done.is_ok_and(|done| done.status.success())
}

impl Hosts {
    /// So many beside the first; none if that cannot be had here.
    fn new(count: usize) -> Option<Hosts> {
        let name = |index| format!("nl{}-{index}", std::process::id());
        let hosts = Hosts((0..=count).map(name).collect());
        let hub = &hosts.0[0];
        let mut is_made = ip(&format!("netns add {hub}"))
            && ip(&format!("-n {hub} link set lo up"))
            && ip(&format!("-n {hub} link add br0 type bridge"))
            && ip(&format!("-n {hub} addr add 10.77.0.1/24 dev br0"))
            && ip(&format!("-n {hub} link set br0 up"));
        for (index, host) in hosts.0.iter().enumerate().skip(1) {
            is_made = is_made
                && ip(&format!("netns add {host}"))
                && ip(&format!("-n {host} link set lo up"))
                && ip(&format!("-n {hub} link add v{index} type veth peer name eth0 netns {host}"))
                && ip(&format!("-n {hub} link set v{index} master br0 up"))
                && ip(&format!("-n {host} addr add 10.77.0.{}/24 dev eth0", index + 1))
                && ip(&format!("-n {host} link set eth0 up"));
        }
        if !is_made {
            eprintln!("skipped: no networks can be made here");
        }
        is_made.then_some(hosts)
    }

    fn start(&self, nats: &Nats, host: usize, name: &str, code: &str) -> Server {
        let url = format!("nats://10.77.0.1:{}", nats.port);
        let mut command = within(Some(&self.0[host]), env!("CARGO_BIN_EXE_node-lua"));
        command.args(["--cluster", &url, "--node", name, "-e", code]);
        Server::spawn(command.current_dir(repository("")).env("RUST_LOG", "off"))
    }

    /// Cuts the cable of a host, or mends it.
    fn set_cable(&self, host: usize, state: &str) {
        assert!(ip(&format!("-n {} link set v{host} {state}", self.0[0])));
    }
}

impl Drop for Hosts {
    fn drop(&mut self) {
        for host in &self.0 {
            ip(&format!("netns del {host}"));
        }
    }
}

/// Answers; when it is to end, lets others be asked, and answers what it has been asked.
const WORKER: &str = "
    context.register('work', { shared = true })
    context.recv(0, function(_, number, from, session)
      context.reply(from, session, number * 3)
    end)
    context.on_signal('TERM', function()
      context.unregister('work')
      timer.timeout(0.3, function() context.exit(0) end)
    end)
    print('ready')";

/// Asks a thousand times a second, and says of each second how many were answered, and failed.
const ASKER: &str = "
    local number, open, seconds = 0, 0, {}
    local function ask()
      number = number + 1
      local mine, second = number, math.floor(timer.now())
      local count = seconds[second] or { ok = 0, failed = 0, asked = 0 }
      seconds[second] = count
      count.asked = count.asked + 1
      open = open + 1
      local ok, answer = context.query('work', mine, 10)
      open = open - 1
      if ok then
        assert(answer == mine * 3, 'wrong answer')
        count.ok = count.ok + 1
      else
        assert(answer == 205 or answer == 207 or answer == 231, answer)
        count.failed = count.failed + 1
      end
    end
    context.on_error(function(message) print('wrong: ' .. tostring(message)) os.exit(1) end)
    local last = math.floor(timer.now())
    timer.loop(0.01, 0.01, function()
      for _ = 1, 10 do context.run(ask) end
      for second = last, math.floor(timer.now()) - 1 do
        local count = seconds[second]
        if count then
          if count.ok + count.failed < count.asked then return end
          print(count.failed == 0 and 'full' or 'failures', count.ok, count.failed)
          seconds[second] = nil
        end
        last = second + 1
      end
    end)
    context.on_signal('TERM', function()
      print('open', open)
      context.exit(0)
    end)";

/// Waits until a whole second has no failure; how long that took.
#[track_caller]
fn wait_until_full(asker: &mut Server, what: &str) {
    let began = Instant::now();
    let mut failed = 0;
    loop {
        let line = asker.line();
        let words: Vec<&str> = line.split('\t').collect();
        assert!(["full", "failures"].contains(&words[0]), "{what}: {line}");
        failed += words[2].parse::<u32>().unwrap();
        if words[0] == "full" {
            break;
        }
        assert!(began.elapsed() < PATIENCE, "{what}: no full service again");
    }
    eprintln!("{what}: {failed} failed, full service after {:.1} s", began.elapsed().as_secs_f64());
}

#[test]
fn three_hosts_survive_what_happens_to_hosts() {
    let Some(hosts) = Hosts::new(3) else { return };
    let Some(mut nats) = Nats::within("", Some(&hosts.0[0])) else { return };
    // The server comes last.
    nats.kill();
    let mut asker = hosts.start(&nats, 1, "asker", ASKER);
    let worker = |host: usize| {
        let mut worker = hosts.start(&nats, host, &format!("host{host}"), WORKER);
        assert_eq!(worker.line(), "ready");
        worker
    };
    let mut workers: Vec<Server> = (1..=3).map(worker).collect();
    nats.restart();
    wait_until_full(&mut asker, "the server comes last");

    workers[1].signal("KILL");
    std::thread::sleep(Duration::from_secs(1));
    workers[1] = hosts.start(&nats, 2, "host2", WORKER);
    wait_until_full(&mut asker, "kill -9 of a process");

    nats.kill();
    nats.restart();
    wait_until_full(&mut asker, "kill -9 of the server");

    hosts.set_cable(3, "down");
    wait_until_full(&mut asker, "a host is cut off");
    hosts.set_cable(3, "up");
    wait_until_full(&mut asker, "its cable is mended");

    hosts.set_cable(1, "down");
    std::thread::sleep(Duration::from_secs(4));
    hosts.set_cable(1, "up");
    wait_until_full(&mut asker, "the asker was cut off");

    for host in 1..=3 {
        workers[host - 1].signal("TERM");
        let before = std::mem::replace(
            &mut workers[host - 1],
            hosts.start(&nats, host, &format!("host{host}"), WORKER),
        );
        before.finish(PATIENCE).succeeded();
    }
    wait_until_full(&mut asker, "rolling restart");
    asker.signal("TERM");
    asker.finish(PATIENCE).succeeded();
}
