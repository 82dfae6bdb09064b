//! `examples/cluster/` do over several processes what they promise, also if some are killed. Where
//! there is no nats-server nothing is checked.

#![cfg(feature = "cluster")]
#![allow(clippy::unwrap_used, reason = "tests")]

#[path = "support/nats.rs"]
mod nats;
mod support;

use std::fs;
use std::io::Write;
use std::process::Stdio;

use nats::Nats;
use support::expect::{compare, promise};
use support::{PATIENCE, Server, node_lua, repository};

fn path(name: &str) -> String {
    format!("examples/cluster/{name}.lua")
}

fn start(nats: &Nats, node: &str, name: &str, args: &[&str]) -> Server {
    let mut command = node_lua();
    command.args(["--cluster", &nats.url(), "--node", node, &path(name)]).args(args);
    Server::spawn(&mut command)
}

fn host(nats: &Nats, node: &str, name: &str, args: &[&str]) -> Server {
    let mut server = start(nats, node, name, args);
    assert_eq!(server.line(), "ready");
    server
}

#[track_caller]
fn assert_promise(server: Server, name: &str) {
    let done = server.finish(PATIENCE).succeeded();
    let source = fs::read_to_string(repository(&path(name))).unwrap();
    let promised = promise(&source).unwrap();
    if let Err(why) = compare(&promised, &done.stdout) {
        panic!("{name}: {why}{done}");
    }
}

#[test]
fn a_chat_over_three_processes() {
    let Some(nats) = Nats::start() else { return };
    let mut talkers = Vec::new();
    for name in ["ann", "bob", "eve"] {
        let mut command = node_lua();
        command.args(["--cluster", &nats.url(), "--node", name, &path("chat")]);
        // What it reads comes from a program that repeats what the test writes to it.
        let mut source = std::process::Command::new("cat")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let input = source.stdin.take().unwrap();
        command.stdin(source.stdout.take().unwrap());
        let mut talker = Server::spawn(&mut command);
        assert_eq!(talker.line(), format!("{name} is here"));
        talkers.push((talker, input, source));
    }
    // Everybody hears of the two others, in any order.
    for (talker, _, _) in &mut talkers {
        for _ in 0..2 {
            let line = talker.line();
            assert!(line.ends_with(" is here"), "{line}");
        }
    }
    talkers[0].1.write_all(b"hello\n").unwrap();
    talkers.iter_mut().for_each(|(talker, _, _)| assert_eq!(talker.line(), "ann: hello"));
    // One leaves, one is killed.
    let (talker, input, mut source) = talkers.remove(1);
    drop(input);
    talker.finish(PATIENCE).succeeded();
    source.wait().unwrap();
    talkers.iter_mut().for_each(|(talker, _, _)| assert_eq!(talker.line(), "bob is gone"));
    talkers[1].0.signal("KILL");
    assert_eq!(talkers[0].0.line(), "eve is gone");
    for (_, input, mut source) in talkers {
        drop(input);
        source.wait().unwrap();
    }
}

#[test]
fn a_pool_grows_and_loses_workers_while_it_works() {
    let Some(nats) = Nats::start() else { return };
    let one = host(&nats, "w1", "pool", &["worker"]);
    let boss = start(&nats, "boss", "pool", &[]);
    let _two = host(&nats, "w2", "pool", &["worker"]);
    one.signal("KILL");
    let _three = host(&nats, "w3", "pool", &["worker"]);
    assert_promise(boss, "pool");
}

#[test]
fn rooms_open_where_there_is_most_room() {
    let Some(nats) = Nats::start() else { return };
    let _one = host(&nats, "h1", "lobby", &["host", "2"]);
    let _two = host(&nats, "h2", "lobby", &["host", "4"]);
    assert_promise(start(&nats, "lobby", "lobby", &[]), "lobby");
}

/// The scripts of the document that shows how to begin.
#[test]
fn the_first_five_minutes_go_as_they_are_told() {
    let Some(nats) = Nats::start() else { return };
    let text = fs::read_to_string(repository("docs/CLUSTER.md")).unwrap();
    let folder = support::Folder::new();
    for block in text.split("```lua\n").skip(1).map(|part| part.split("```").next().unwrap()) {
        let name = block.lines().next().unwrap().strip_prefix("-- ").unwrap();
        folder.write(name, block);
    }
    let mut store = node_lua();
    store.args(["--cluster", &nats.url(), "--node", "shop"]).arg(folder.path("store.lua"));
    let _store = Server::spawn(&mut store);
    let mut ask = node_lua();
    ask.args(["--cluster", &nats.url(), "--node", "asker"]);
    let done = support::run(ask.arg(folder.path("ask.lua"))).succeeded();
    assert_eq!(done.stdout, "true\tblue\nfalse\t205\nasker shop\n");
    assert!(text.contains("true    blue\nfalse   205\nasker shop\n"));
}
