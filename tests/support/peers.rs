//! Other programs that tests talk to: whether they are there, and which they are.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "a helper of tests")]
#![allow(dead_code, reason = "every test crate uses some of the helpers")]

use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::Instant;

use super::support::{Folder, PATIENCE, Server, free_port, repository};

/// Notes that something is not there; then the test has nothing to do.
pub(crate) fn lacks(what: &str) -> bool {
    assert!(std::env::var_os("NODE_LUA_PEERS").is_none(), "{what} is not installed");
    println!("skipped: {what} is not installed");
    true
}

/// Whether a program is missing; the version of one that is not is printed.
pub(crate) fn lacks_program(program: &str) -> bool {
    let flag = match program {
        "nginx" | "haproxy" | "wrk" => "-v",
        "ab" => "-V",
        "openssl" => "version",
        _ => "--version",
    };
    let Ok(output) = peer(program).arg(flag).stdin(Stdio::null()).output() else {
        return lacks(program);
    };
    let text = [output.stdout, output.stderr].concat();
    println!("{}", String::from_utf8_lossy(&text).lines().next().unwrap_or(program));
    false
}

/// A command of a program, which may be one that only root has in its path.
pub(crate) fn peer(program: &str) -> Command {
    let mut command = Command::new(program);
    let path = std::env::var("PATH").unwrap_or_default();
    command.env("PATH", format!("{path}:/usr/sbin:/sbin"));
    command
}

/// Where `.ci/run` puts what no package of the system has.
pub(crate) fn tool(path: &str) -> PathBuf {
    repository("target/tools").join(path)
}

/// A script for Node.js that can require these modules of npm; nothing if something is missing.
pub(crate) fn node(folder: &Folder, modules: &[&str], script: &str) -> Option<Command> {
    if lacks_program("node") {
        return None;
    }
    for module in modules {
        let path = tool("node_modules").join(module);
        if !path.exists() {
            lacks(&format!("npm's {module}"));
            return None;
        }
        let about = std::fs::read_to_string(path.join("package.json")).unwrap();
        let version = about.lines().find(|line| line.contains("\"version\"")).unwrap_or_default();
        println!("{module}{version}");
    }
    let mut command = Command::new("node");
    command.env("NODE_PATH", tool("node_modules")).arg(folder.write("peer.js", script));
    Some(command)
}

/// Waits until somebody listens on a port.
pub(crate) fn wait_for(port: u16) {
    let deadline = Instant::now() + PATIENCE;
    while TcpStream::connect(("127.0.0.1", port)).is_err() {
        assert!(Instant::now() < deadline, "nobody listens on {port}");
        std::thread::yield_now();
    }
}

/// Starts nginx with these lines within `http`, in which `PORT` is its port, in the folder.
pub(crate) fn nginx(folder: &Folder, lines: &str) -> (Server, u16) {
    let port = free_port();
    let config = format!(
        "daemon off; pid nginx.pid; worker_processes 1; error_log stderr;
         events {{ worker_connections 500; }}
         http {{ access_log off; client_body_temp_path t1; proxy_temp_path t2;
           fastcgi_temp_path t3; uwsgi_temp_path t4; scgi_temp_path t5; {} }}",
        lines.replace("PORT", &port.to_string())
    );
    let config = folder.write("nginx.conf", config);
    let mut command = peer("nginx");
    // In the foreground without a master, so that the test ends it with its one process.
    command.args(["-e", "stderr", "-g", "master_process off;", "-p"]).arg(folder.path(""));
    let server = Server::spawn(command.arg("-c").arg(config));
    wait_for(port);
    (server, port)
}

/// Starts haproxy with a frontend and a backend of these lines, in which `PORT` is its port, in
/// the folder.
pub(crate) fn haproxy(folder: &Folder, front: &str, back: &str) -> (Server, u16) {
    let port = free_port();
    let config = format!(
        "defaults\n mode http\n timeout connect 60s\n timeout client 60s\n timeout server 60s\n\
         frontend front\n bind 127.0.0.1:{port} {front}\n default_backend back\n\
         backend back\n {back}\n"
    );
    let config = folder.write("haproxy.cfg", config);
    let mut command = peer("haproxy");
    command.current_dir(folder.path("")).args(["-db", "-f"]).arg(config);
    let server = Server::spawn(&mut command);
    wait_for(port);
    (server, port)
}
