//! Datagrams with programs of others: dig asks the DNS server of the examples, its client asks
//! dnsmasq, socat echoes; and over networks that lose, or take their time. A test whose peer is not
//! installed says so and passes; `.ci/run` installs them.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::net::UdpSocket;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use support::{Done, Server, free_port, node_lua, repository, run};

/// Whether the shell finds these; otherwise says which it does not.
fn has(commands: &[&str]) -> bool {
    let missing: Vec<_> = commands
        .iter()
        .filter(|name| {
            !run(Command::new("sh").args(["-c", "command -v \"$0\"", name])).stdout.contains('/')
        })
        .collect();
    if !missing.is_empty() {
        eprintln!("skipped: not installed: {missing:?}");
    }
    missing.is_empty()
}

/// A peer that is killed when dropped.
struct Peer(Child);

impl Peer {
    fn start(program: &str, arguments: &[&str]) -> Peer {
        let mut command = Command::new(program);
        let command = command.args(arguments).stdin(Stdio::null());
        Peer(command.stdout(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

fn dns_server() -> (Server, u16) {
    let mut server = Server::start(["examples/dns_server.lua", "0"]);
    let port = server.port();
    (server, port)
}

fn dig(port: u16, question: &str) -> Done {
    let port = port.to_string();
    let mut command = Command::new("dig");
    command.args(["@127.0.0.1", "-p", &port, "+tries=5", "+time=5"]);
    run(command.args(question.split(' '))).succeeded()
}

#[test]
fn dig_gets_answers_from_the_dns_server() {
    if !has(&["dig"]) {
        return;
    }
    let (_server, port) = dns_server();
    for (question, answer) in [
        ("+short example.test", "192.0.2.1\n"),
        ("+short EXAMPLE.test A", "192.0.2.1\n"),
        ("+short www.example.test", "192.0.2.2\n192.0.2.3\n"),
        ("+short www.example.test AAAA", "2001:db8::2\n"),
        ("+short example.test TXT", "\"a table of names\"\n"),
        ("+short alias.example.test", "www.example.test.\n192.0.2.2\n192.0.2.3\n"),
        ("+short example.test MX", ""),
        ("+short +noedns nobody.test", ""),
    ] {
        assert_eq!(dig(port, question).stdout, answer, "{question}");
    }
    let none = dig(port, "nobody.example.test");
    assert!(none.stdout.contains("status: NXDOMAIN"), "{none}");
    let known = dig(port, "example.test MX");
    assert!(
        known.stdout.contains("status: NOERROR") && known.stdout.contains("ANSWER: 0"),
        "{known}"
    );
    let notify = dig(port, "+opcode=NOTIFY example.test");
    assert!(notify.stdout.contains("status: NOTIMP"), "{notify}");
}

#[test]
fn what_is_no_question_is_ignored_by_the_dns_server() {
    let (_server, port) = dns_server();
    let socket = UdpSocket::bind("127.0.0.1:0").unwrap();
    socket.connect(("127.0.0.1", port)).unwrap();
    let question = b"\x12\x34\x01\0\0\x01\0\0\0\0\0\0\x07example\x04test\0\0\x01\0\x01";
    let mut state = 1_u64;
    let mut random = || {
        state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        (state >> 33) as usize
    };
    for _ in 0..2000 {
        let mut packet = question[..random() % (question.len() + 1)].to_vec();
        for _ in 0..random() % 4 {
            if !packet.is_empty() {
                let at = random() % packet.len();
                packet[at] = random() as u8;
            }
        }
        socket.send(&packet).unwrap();
    }
    // An answer is no question.
    let mut answer = question.to_vec();
    answer[2] = 0x81;
    socket.send(&answer).unwrap();
    let asker = UdpSocket::bind("127.0.0.1:0").unwrap();
    asker.connect(("127.0.0.1", port)).unwrap();
    asker.set_read_timeout(Some(Duration::from_millis(100))).unwrap();
    let mut space = [0; 512];
    let count = (0..600)
        .find_map(|_| {
            asker.send(question).unwrap();
            asker.recv(&mut space).ok()
        })
        .expect("it still answers");
    assert_eq!(space[..2], question[..2]);
    assert_eq!(space[count - 4..count], [192, 0, 2, 1]);
}

#[test]
fn the_dns_client_gets_answers_from_dnsmasq() {
    if !has(&["dnsmasq"]) {
        return;
    }
    let port = free_port().to_string();
    let listen = format!("--port={port}");
    let arguments = [
        "--keep-in-foreground",
        "--conf-file=/dev/null",
        "--pid-file",
        "--user=root",
        "--no-resolv",
        "--no-hosts",
        "--listen-address=127.0.0.1",
        "--bind-interfaces",
        "--local=/test/",
        "--host-record=one.test,192.0.2.7",
        "--host-record=two.test,192.0.2.8",
        "--cname=alias.test,two.test",
        &listen,
    ];
    let _peer = Peer::start("dnsmasq", &arguments);
    // It may take a while to be there: until then it refuses.
    let names = ["127.0.0.1", "one.test", "two.test", "alias.test", "none.test"];
    let done = (0..600)
        .find_map(|_| {
            let done = run(node_lua().args(["examples/dns_client.lua", &port]).args(names));
            let is_there = done.code() == Some(0);
            if !is_there {
                std::thread::sleep(Duration::from_millis(20));
            }
            is_there.then_some(done)
        })
        .expect("dnsmasq answers");
    let expected = "one.test: 192.0.2.7\ntwo.test: 192.0.2.8\nalias.test: 192.0.2.8\n\
                    none.test: no such name\n";
    assert_eq!(done.stdout, expected, "{done}");
}

#[test]
fn socat_echoes_and_is_echoed() {
    if !has(&["socat"]) {
        return;
    }
    let code = "
        local _, sock = udp.open('127.0.0.1', 0)
        sock:read(function(_, data, addr, port) sock:write(data, addr, port) end)
        print(sock:local_port())";
    let mut server = Server::start(["-e", code]);
    let to = format!("UDP4:127.0.0.1:{}", server.port());
    let script = "printf 'from socat' | socat -t5 - \"$0\" | head -c 10";
    let done = run(Command::new("sh").args(["-c", script, &to])).succeeded();
    assert_eq!(done.stdout, "from socat", "{done}");
    let port = free_port();
    let _peer = Peer::start("socat", &[&format!("UDP4-LISTEN:{port},bind=127.0.0.1"), "EXEC:cat"]);
    let code = format!(
        "local _, sock = udp.open()
         sock:connect('127.0.0.1', {port})
         for i = 1, 600 do
             sock:write('to socat')
             local ok, data = sock:read(0.1)
             if ok then return print(data) end
             timer.sleep(0.05) -- refused until it is there
         end"
    );
    let done = run(node_lua().args(["-e", &code])).succeeded();
    assert_eq!(done.stdout, "to socat\n", "{done}");
}

/// Runs a script in a network of its own, prepared by `setup`; nothing if that cannot be had here.
/// What still waits in its interface is thrown away at the end: the kernel would send it for hours,
/// and has one queue of ICMP errors for all networks, so that closed ports elsewhere would be
/// silent.
fn run_in_network(setup: &str, script: &str) -> Option<Done> {
    if !has(&["unshare", "ip"]) {
        return None;
    }
    let line = format!(
        "ip link set lo up || exit 99; ({setup}) || exit 99; \"$0\" \"$@\"; status=$?
         tc qdisc del dev lo root 2>/dev/null; exit $status"
    );
    let mut command = Command::new("unshare");
    command.args(["-n", "sh", "-c", &line, env!("CARGO_BIN_EXE_node-lua"), "-e", script]);
    let done = run(command.current_dir(repository("")));
    if done.code() == Some(99) || done.stderr.contains("Operation not permitted") {
        eprintln!("skipped: no such network here: {}", done.stderr);
        return None;
    }
    Some(done.succeeded())
}

#[test]
fn who_asks_again_is_answered_although_one_in_a_hundred_is_lost() {
    // netem, or where the kernel lacks it, a rule that drops at random.
    let setup = "tc qdisc add dev lo root netem loss 1% 2>/dev/null ||
        nft 'add table inet loss; add chain inet loss input { type filter hook input priority 0; };
             add rule inet loss input meta l4proto udp numgen random mod 100 < 1 drop'";
    let script = "
        local _, server = udp.open('127.0.0.1', 0)
        server:read(function(_, data, addr, port) server:write(data, addr, port) end)
        local _, sock = udp.open()
        sock:connect('127.0.0.1', server:local_port())
        local again, right = 0, 0
        for i = 1, 2000 do
            local answer
            sock:write(tostring(i))
            repeat
                local ok, data = sock:read(0.01)
                if ok then answer = data:tostring()
                else again = again + 1 sock:write(tostring(i)) end
            until answer == tostring(i)
            right = right + 1
        end
        print(right, again)
        server:close()";
    let Some(done) = run_in_network(setup, script) else { return };
    let (right, again) = done.stdout.trim().split_once('\t').unwrap();
    assert_eq!(right, "2000", "{done}");
    // 4,000 datagrams, of which some 40 are lost.
    assert!((5..200).contains(&again.parse::<u32>().unwrap()), "{done}");
}

#[test]
fn what_the_system_does_not_take_yet_waits_in_a_bounded_queue() {
    let setup = "tc qdisc add dev lo root tbf rate 5mbit burst 64kb limit 64mb";
    let script = "
        local _, server = udp.open('127.0.0.1', 0)
        local got, last, in_order = 0, 0, true
        server:read(function(_, data)
            got, in_order, last = got + 1, in_order and data:u32be(0) > last, data:u32be(0)
        end)
        local _, sock = udp.open()
        local port, told = server:local_port(), 0
        for i = 1, 1000 do
            local data = buffer.pack('>I4', i)
            data:append(('x'):rep(1000))
            sock:write(data, '127.0.0.1', port, function(ok) told = told + (ok and 1 or 0) end)
        end
        print(sock:write('waits its turn', '127.0.0.1', 9, true))
        -- The receiver's buffer is the system's, and may be full for a moment.
        while got + server:stat().dropped < 1000 do timer.sleep(0.01) end
        print(got > 900, in_order, told)
        -- More than may wait.
        local codes = {}
        for i = 1, 12000 do
            sock:write(('y'):rep(1000), '127.0.0.1', 9, function(_, code)
                codes[code] = (codes[code] or 0) + 1
            end)
        end
        timer.sleep(0.001)
        print(codes[212] and codes[212] > 1000, sock:stat().failed == codes[212])
        os.exit(0)";
    let Some(done) = run_in_network(setup, script) else { return };
    assert_eq!(done.stdout, "true\t0\ntrue\ttrue\t1000\ntrue\ttrue\n", "{done}");
}

/// What closed sockets have not sent has one bound for the process: what was closed first is given
/// up, and whoever waits for it is told.
#[test]
fn what_waits_at_closed_sockets_has_a_bound() {
    let setup = "tc qdisc add dev lo root tbf rate 8kbit burst 64kb limit 1gb";
    let script = "
        local text, socks, told, codes = ('x'):rep(60000), {}, {}, {}
        for i = 1, 20 do
            told[i] = 0
            local _, sock = udp.open()
            -- What each may have waiting, and some that the system takes.
            for _ = 1, 150 do
                sock:write(text, '127.0.0.1', 9, function(ok, code)
                    if ok or code == 212 then return end
                    told[i], codes[code] = told[i] + 1, true
                end)
            end
            socks[i] = sock
            timer.sleep(0)
        end
        for i = 1, 20 do socks[i]:close() end
        timer.sleep(0)
        local function count(from, to)
            local n = 0
            for i = from, to do if told[i] > 100 then n = n + 1 end end
            return n
        end
        print(count(1, 20), count(1, 4))
        while count(1, 20) < 20 do timer.sleep(0.1) end
        for code in pairs(codes) do print(code) end
        os.exit(0)";
    let Some(done) = run_in_network(setup, script) else { return };
    // 16 of 8 MiB are 128 MiB.
    assert_eq!(done.stdout, "4\t4\n40\n", "{done}");
}
