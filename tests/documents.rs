//! The scripts in README.md and docs/GUIDE.md do what the text beside them says.

#![allow(clippy::unwrap_used, reason = "tests")]

mod support;

use std::fs;

use support::expect::compare;
use support::{Folder, Server, node_lua, repository, run};

/// The fenced blocks of one language in a document.
fn blocks(document: &str, language: &str) -> Vec<String> {
    let text = fs::read_to_string(repository(document)).unwrap();
    let open = format!("```{language}\n");
    text.split(&open).skip(1).map(|rest| rest.split("```").next().unwrap().to_owned()).collect()
}

/// The tour's scripts in a folder, each under the name in its first line.
fn guide() -> Folder {
    let folder = Folder::new();
    for block in blocks("docs/GUIDE.md", "lua") {
        let name = block.lines().next().and_then(|line| line.strip_prefix("-- "));
        folder.write(name.unwrap(), &block);
    }
    folder
}

#[track_caller]
fn assert_prints(folder: &Folder, script: &str, args: &[&str], expected: &str) {
    let path = folder.path("");
    let done = run(node_lua().current_dir(path).arg(script).args(args)).succeeded();
    if let Err(why) = compare(expected, &done.stdout) {
        panic!("{script}: {why}{done}");
    }
}

#[test]
fn the_script_in_the_readme_has_ten_lines_and_prints_what_stands_below_it() {
    let script = &blocks("README.md", "lua")[0];
    assert!(script.lines().count() <= 10);
    let folder = Folder::new();
    folder.write("ping.lua", script);
    let console = &blocks("README.md", "console")[0];
    let (command, output) = console.split_once('\n').unwrap();
    assert!(command.ends_with("ping.lua"));
    assert_prints(&folder, "ping.lua", &[], output);
}

#[test]
fn the_one_liner_in_the_readme_talks_to_the_echo_server() {
    let one_liner = blocks("README.md", "sh").into_iter().find(|block| block.contains("/dev/tcp"));
    let one_liner = one_liner.unwrap();
    let mut server = Server::start(["examples/echo_server.lua", "0"]);
    let port = server.port();
    let one_liner = one_liner.replace("/7101", &format!("/{port}"));
    let done = run(std::process::Command::new("sh").args(["-c", &one_liner])).succeeded();
    assert_eq!(done.stdout, blocks("README.md", "text")[0], "{done}");
}

#[test]
fn scripts_of_the_tour_print_what_it_says() {
    let folder = guide();
    assert_prints(&folder, "hello.lua", &["a", "b"], "hello from context 1\ta\tb\n");
    assert_prints(&folder, "later.lua", &[], "the script goes on\none second later\n");
    assert_prints(&folder, "wait.lua", &[], "beside\t1\nbeside\t2\nmain\nbeside\t3\n");
    assert_prints(&folder, "main.lua", &[], "78498 primes below a million\n");
    assert_prints(&folder, "ask.lua", &[], "true\tHELLO\ntrue\tAGAIN\nfalse\t20...\n");
    assert_prints(&folder, "bytes.lua", &[], "hello\t7\t3\n");
}

#[test]
fn client_and_server_of_the_tour_talk_to_each_other() {
    let folder = guide();
    for name in ["server.lua", "client.lua"] {
        let source = fs::read_to_string(folder.path(name)).unwrap();
        assert!(source.contains("7000"));
        folder.write(name, source.replace("7000", "tonumber((...))"));
    }
    let server = fs::read_to_string(folder.path("server.lua")).unwrap();
    folder.write("server.lua", format!("{server}print(tcp.local_port(listener))\n"));
    let mut server = Server::start([folder.path("server.lua").as_os_str(), "0".as_ref()]);
    let port = server.port().to_string();
    assert_prints(&folder, "client.lua", &[&port], "got 5 bytes\n");
}
