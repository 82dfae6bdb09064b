//! Runs every example and compares what it prints with what its header promises.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::{Read, Write};

use support::expect::{compare, promise};
use support::{Folder, PATIENCE, Server, connect, files, node_lua, repository, run, stem};

/// Scripts that run and end by themselves.
const ALONE: &[&str] = &[
    "hello",
    "json",
    "packet",
    "postgres",
    "rpc_pool",
    "supervisor",
    "timers",
    "tls_echo",
    "topics",
];

/// Servers, each with the client that talks to it.
const PAIRS: &[(&str, &str)] = &[
    ("chat_server", "chat_client"),
    ("dns_server", "dns_client"),
    ("echo_server", "echo_client"),
    ("gate", "gate_client"),
    #[cfg(feature = "http")]
    ("http_server", "http_client"),
    ("rpc_server", "rpc_client"),
];

/// Scripts that others start, with those that do.
const STARTED_BY: &[(&str, &str)] = &[
    ("agent", "gate"),
    ("greeter", "hello"),
    ("reader", "topics"),
    ("rpc_connection", "rpc_client"),
    ("rpc_worker", "rpc_pool"),
    ("worker", "supervisor"),
];

fn path(name: &str) -> String {
    format!("examples/{name}.lua")
}

fn source(name: &str) -> String {
    fs::read_to_string(repository(&path(name))).unwrap()
}

fn promised(name: &str) -> String {
    promise(&source(name)).unwrap_or_else(|| panic!("{name}: no `-- Expected output:`"))
}

#[track_caller]
fn assert_promise(name: &str, args: &[&str]) {
    let done = run(node_lua().arg(path(name)).args(args));
    if let Err(why) = compare(&promised(name), &done.stdout) {
        panic!("{name}: {why}{done}");
    }
    done.succeeded();
}

/// A server on a port of its own, whose first line is what it promises.
fn start(name: &str) -> (Server, u16) {
    let mut server = Server::start([path(name).as_str(), "0"]);
    let line = server.line();
    let (before, port) = line.rsplit_once(':').unwrap();
    let promised = promised(name);
    // The promise names the default port.
    let (expected, _) = promised.lines().next().unwrap().rsplit_once(':').unwrap();
    if let Err(why) = compare(expected, before) {
        panic!("{name}: {why}");
    }
    (server, port.parse().unwrap())
}

#[test]
fn scripts_that_end_print_what_they_promise() {
    let has_json = cfg!(all(feature = "json", feature = "msgpack"));
    let has_tls = cfg!(feature = "tls");
    let is_there = |name: &str| (name != "json" || has_json) && (name != "tls_echo" || has_tls);
    for name in ALONE.iter().filter(|name| is_there(name)) {
        assert_promise(name, &[]);
    }
}

#[test]
fn unix_socket_prints_what_it_promises_and_replaces_a_stale_file() {
    let folder = Folder::new();
    let socket = folder.path("example.sock");
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    assert!(socket.exists());
    assert_promise("unix_socket", &[socket.to_str().unwrap()]);
}

#[test]
fn graceful_finishes_what_it_has_begun_as_it_promises() {
    let (mut server, port) = start("graceful");
    let mut client = connect(port);
    let mut idler = connect(port);
    client.write_all(b"\0\x05hello").unwrap();
    let working = server.line();
    server.signal("TERM");
    let mut answer = Vec::new();
    client.read_to_end(&mut answer).unwrap();
    assert_eq!(answer, b"\0\x05hello");
    assert_eq!(idler.read(&mut [0]).unwrap(), 0);
    let done = server.finish(PATIENCE).succeeded();
    let promised = promised("graceful");
    let (_, rest) = promised.split_once('\n').unwrap();
    if let Err(why) = compare(rest, &format!("{working}\n{}", done.stdout)) {
        panic!("{why}{done}");
    }
}

#[test]
fn clients_print_what_they_promise_with_their_servers() {
    for (server, client) in PAIRS {
        let (_server, port) = start(server);
        let port = port.to_string();
        // A server serves the second client as it did the first.
        for _ in 0..2 {
            assert_promise(client, &[&port]);
        }
    }
}

#[cfg(all(feature = "http", feature = "websocket"))]
#[test]
fn chat_over_websocket_tells_all_members() {
    let (_server, port) = start("chat_ws_server");
    let script = r#"
        local function join(name)
          return context.check(websocket.connect("URL" .. name, { protocols = "chat" }))
        end
        local function hear(ws) return select(2, ws:recv(50)):tostring() end
        local ada = join("Ada%20L")
        print(hear(ada))
        local bob = join("Bob")
        print(hear(ada), hear(bob))
        bob:send("hello")
        print(hear(ada), hear(bob))
        bob:close()
        print(hear(ada))"#;
    let url = format!("ws://127.0.0.1:{port}/ws?name=");
    let done = run(node_lua().args(["-e", &script.replace("URL", &url)])).succeeded();
    let expected = "*Ada L has come\n*Bob has come\t*Bob has come\n Bob: hello\t Bob: hello\n\
                    *Bob has gone\n";
    assert_eq!(done.stdout, expected);
}

#[test]
fn clients_without_their_server_fail_with_a_reason() {
    let port = support::free_port().to_string();
    for (_, client) in PAIRS {
        let done = run(node_lua().args([&path(client), &port]));
        assert!(
            done.stderr.contains("refused") || done.stderr.contains("reply"),
            "{client}: {done}"
        );
        assert_eq!(done.code(), Some(1), "{client}: {done}");
    }
}

#[test]
fn every_example_is_run_and_tells_what_it_shows() {
    let mut known: BTreeSet<String> = ALONE.iter().map(ToString::to_string).collect();
    known.extend(["unix_socket", "graceful", "chat_ws_server"].map(str::to_owned));
    for (one, other) in PAIRS {
        known.extend([one.to_string(), other.to_string()]);
    }
    for (script, starter) in STARTED_BY {
        assert!(source(starter).contains(script), "{starter} does not start {script}");
        assert!(source(script).contains(starter), "{script} does not say that {starter} starts it");
        known.insert(script.to_string());
    }
    let found: BTreeSet<String> = files("examples", "lua").iter().map(|path| stem(path)).collect();
    // Some are of features.
    assert!(found.is_superset(&known), "{known:?}");
    if cfg!(feature = "http") {
        assert_eq!(found, known);
    }
    for name in &found {
        let source = source(name);
        assert!(source.contains("\n-- Shows: "), "{name}: no `-- Shows:`");
        let started = STARTED_BY.iter().any(|(script, _)| script == name);
        let command = format!("\n-- Run: node-lua {}", path(name));
        assert_eq!(source.contains(&command), !started, "{name}: {command}");
    }
}
