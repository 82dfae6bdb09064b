//! Requests that two readers could take differently: they get 400 and the end of the connection.
//! What is sent is in `http/requests.lua`, what nginx and Node.js make of it in `docs/api/http.md`.

#![cfg(feature = "http")]
#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "tests")]

#[path = "support/http.rs"]
mod http;
#[path = "support/peers.rs"]
mod peers;
mod support;

use std::collections::BTreeMap;

use http::{get, serve};
use support::{Folder, PATIENCE, Server, node_lua, repository, run_for};

/// What came of a request.
struct Reading {
    name: String,
    expected: String,
    found: String,
}

/// Sends all requests to a server.
fn readings(port: u16, args: &[&str]) -> Vec<Reading> {
    let mut command = node_lua();
    command.arg(repository("tests/http/readings.lua")).arg(port.to_string()).args(args);
    let done = run_for(&mut command, 5 * PATIENCE).succeeded();
    let reading = |line: &str| {
        let [group, name, expected, found] = line.split('\t').collect::<Vec<_>>()[..] else {
            panic!("{line}");
        };
        let name = format!("{group}: {name}");
        Reading { name, expected: expected.to_owned(), found: found.to_owned() }
    };
    done.stdout.lines().map(reading).collect()
}

/// Whether what came is what had to; if the answer may have begun before the fault came, that it
/// was cut off will do too.
fn is_as_expected(reading: &Reading, is_split: bool) -> bool {
    let Reading { expected, found, .. } = reading;
    found == expected
        || expected.ends_with(" cut") && found == "400"
        || is_split && expected == "400" && found == "200 cut"
}

#[test]
fn requests_with_two_readings_are_refused_and_end_the_connection() {
    let (_server, port) = serve("", "");
    for (args, is_split) in [(&[][..], false), (&["0", "bytewise"], true)] {
        let found = readings(port, args);
        assert!(found.len() > 200, "{}", found.len());
        let wrong: Vec<String> = found
            .iter()
            .filter(|reading| !is_as_expected(reading, is_split))
            .map(|Reading { name, expected, found }| format!("{name}: {found}, not {expected}"))
            .collect();
        assert!(wrong.is_empty(), "{args:?}:\n{}", wrong.join("\n"));
    }
    assert!(get(port, "/").ends_with("hello"));
}

/// The same server for Node.js.
const NODE: &str = "
    const http = require('http');
    const server = http.createServer((req, res) => {
        if (req.url === '/echo') return req.pipe(res);
        if (req.url === '/') return res.end('hello');
        res.statusCode = 404;
        res.end('no ' + req.url);
    });
    server.listen(0, '127.0.0.1', () => console.log(server.address().port));";

/// Prints what others make of the same bytes.
#[test]
#[ignore = "compares with others; some minutes"]
fn what_nginx_and_node_make_of_them() {
    let folder = Folder::new();
    if peers::lacks_program("nginx") {
        return;
    }
    let Some(mut node) = peers::node(&folder, &[], NODE) else { return };
    let mut node = Server::spawn(&mut node);
    let node_port = node.port();
    let (_ours, port) = serve("", "");
    let lines = format!(
        "server {{ listen 127.0.0.1:PORT;
           location = / {{ return 200 hello; }}
           location = /echo {{ proxy_pass http://127.0.0.1:{node_port}; }}
           location / {{ return 404 no; }} }}"
    );
    let (_nginx, nginx_port) = peers::nginx(&folder, &lines);
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for port in [port, nginx_port, node_port] {
        for Reading { name, expected, found } in readings(port, &["1"]) {
            let row = all.entry(name).or_insert_with(|| vec![expected]);
            row.push(found);
        }
    }
    for (name, row) in all {
        println!("| {name} | {} |", row.join(" | "));
    }
}
