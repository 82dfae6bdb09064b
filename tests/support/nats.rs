//! A nats-server of the test's own.

#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]
#![allow(dead_code, reason = "every test crate uses some of it")]

use std::ffi::OsStr;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use crate::support::{Folder, PATIENCE, Server, connect, free_port, node_lua, run};

/// The program, if there is one. `NODE_LUA_PEERS=all` insists.
fn program() -> Option<&'static str> {
    let found = ["nats-server", "/usr/sbin/nats-server"].into_iter().find(|program| {
        Command::new(program).arg("--version").output().is_ok_and(|done| done.status.success())
    });
    if found.is_none() {
        assert!(std::env::var_os("NODE_LUA_PEERS").is_none(), "no nats-server");
        eprintln!("skipped: there is no nats-server (Debian's package of that name)");
    }
    found
}

/// A server, killed when dropped.
pub(crate) struct Nats {
    child: Child,
    pub(crate) port: u16,
    pub(crate) config: String,
    network: Option<String>,
    folder: Folder,
}

/// A command, to be run in the network of this name.
pub(crate) fn within(network: Option<&str>, program: impl AsRef<OsStr>) -> Command {
    let Some(network) = network else { return Command::new(program) };
    let mut command = Command::new("ip");
    command.args(["netns", "exec", network]).arg(program);
    command
}

/// Starts it; returns once it is ready.
fn start(folder: &Folder, config: &str, network: Option<&str>, port: u16) -> Child {
    let host = if network.is_some() { "0.0.0.0" } else { "127.0.0.1" };
    let path = folder.write("nats.conf", format!("listen: {host}:{port}\n{config}\n"));
    let mut child = within(network, program().unwrap())
        .arg("-c")
        .arg(path)
        .stderr(Stdio::piped())
        .stdout(Stdio::null())
        .spawn()
        .unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap());
    let mut line = String::new();
    while !line.contains("Server is ready") {
        line.clear();
        assert!(lines.read_line(&mut line).unwrap() > 0, "nats-server does not start");
    }
    // Whatever else it says is read, so that it can go on.
    std::thread::spawn(move || drop(std::io::copy(&mut lines, &mut std::io::sink())));
    child
}

impl Nats {
    /// A server; none if there is no such program here.
    pub(crate) fn start() -> Option<Nats> {
        Nats::with("")
    }

    /// The same with these lines in its configuration.
    pub(crate) fn with(config: &str) -> Option<Nats> {
        Nats::within(config, None)
    }

    /// The same in the network of this name, on all its addresses.
    pub(crate) fn within(config: &str, network: Option<&str>) -> Option<Nats> {
        program()?;
        let folder = Folder::new();
        let port = free_port();
        let child = start(&folder, config, network, port);
        let network = network.map(str::to_owned);
        Some(Nats { child, port, config: config.to_owned(), network, folder })
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}", self.port)
    }

    /// A command for a process of the cluster.
    pub(crate) fn command(&self, node: &str, code: &str) -> Command {
        let mut command = node_lua();
        command.args(["--cluster", &self.url(), "--node", node, "-e", code]);
        command
    }

    /// A process of the cluster that runs this code.
    pub(crate) fn node(&self, node: &str, code: &str) -> Server {
        Server::spawn(&mut self.command(node, code))
    }

    /// Kills it.
    pub(crate) fn kill(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }

    /// Starts it again, on the same port.
    pub(crate) fn restart(&mut self) {
        let network = self.network.as_deref();
        self.child = start(&self.folder, &self.config, network, self.port);
    }

    /// Sends it a signal, named as `kill` does.
    pub(crate) fn signal(&self, name: &str) {
        let id = self.child.id().to_string();
        assert!(Command::new("kill").args(["-s", name, &id]).status().unwrap().success());
    }

    /// Publishes some bytes, as any client may.
    pub(crate) fn publish(&self, subject: &str, bytes: &[u8]) {
        let mut stream = connect(self.port);
        let mut first = [0; 5];
        stream.read_exact(&mut first).unwrap();
        assert_eq!(&first, b"INFO ");
        let head = format!("CONNECT {{\"verbose\":false}}\r\nPUB {subject} {}\r\n", bytes.len());
        stream.write_all(&[head.as_bytes(), bytes, b"\r\nPING\r\n"].concat()).unwrap();
        wait_for_pong(stream);
    }
}

fn wait_for_pong(stream: TcpStream) {
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    let mut lines = BufReader::new(stream);
    let mut line = String::new();
    while line.trim() != "PONG" {
        line.clear();
        assert!(lines.read_line(&mut line).unwrap() > 0, "the server has hung up");
    }
}

impl Drop for Nats {
    fn drop(&mut self) {
        // One that was stopped too.
        self.kill();
    }
}

/// Functions for scripts: `wait_for` waits until so many processes are there, `ask` until somebody
/// answers.
pub(crate) const WAIT: &str = "
    local function wait_for(count)
      while #context.nodes() ~= count do timer.sleep(0.02) end
    end
    local function ask(...)
      local ok, value, text
      repeat
        ok, value, text = context.query(...)
        local is_over = ok or value ~= 205 and value ~= 231
        if not is_over then timer.sleep(0.01) end
      until is_over
      return ok, value, text
    end
    ";

/// What a process of the cluster prints that runs this code, which can use [`WAIT`].
#[track_caller]
pub(crate) fn assert_prints(nats: &Nats, code: &str, expected: &str) {
    let done = run(&mut nats.command("asker", &[WAIT, code].concat())).succeeded();
    assert_eq!(done.stdout, expected, "{done}");
}
