//! Helpers shared by the integration tests: running scripts through the binary with a time limit,
//! servers that tell when they are ready, temporary scripts, comparing promised output.
//!
//! Nothing here sleeps to wait for something: a finished process is known by the end of its
//! output, a ready server by its first line. Nothing here tests the binary either.
//!
//! ```ignore
//! let done = support::run(node_lua().args(["-e", "print(1)"]));
//! assert_eq!(done.stdout, "1\n");
//! ```

#![allow(dead_code, unused_imports, reason = "every test crate uses some of the helpers")]
#![allow(clippy::unwrap_used, reason = "a helper that fails is a test that fails")]

pub(crate) mod cases;
pub(crate) mod expect;
pub(crate) mod process;
pub(crate) mod vm;

use std::fs;
use std::io::Read;
use std::net::{TcpListener, TcpStream, UdpSocket};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

pub(crate) use process::{Done, Server, node_lua, run, run_for};

/// How long anything may take before the test gives up: far above what a loaded machine needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(180);

/// A path below the repository's root.
pub(crate) fn repository(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The files with this extension in a folder below the root, sorted by name.
pub(crate) fn files(folder: &str, extension: &str) -> Vec<PathBuf> {
    let mut found: Vec<PathBuf> = fs::read_dir(repository(folder))
        .unwrap_or_else(|error| panic!("{folder}: {error}"))
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|found| found == extension))
        .collect();
    found.sort();
    found
}

/// The last part of a path without its extension.
pub(crate) fn stem(path: &Path) -> String {
    path.file_stem().unwrap().to_string_lossy().into_owned()
}

/// A folder of this test alone, removed when dropped.
#[derive(Debug)]
pub(crate) struct Folder(PathBuf);

impl Folder {
    pub(crate) fn new() -> Folder {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        let name = format!("node-lua-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).unwrap();
        Folder(path)
    }

    /// The path of a file in it, existing or not.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file and returns its path.
    pub(crate) fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

/// A command that runs `main` beside the other scripts, given as name and source; in `main`, `here`
/// is their folder, which lives as long as the first result.
pub(crate) fn beside(scripts: &[(&str, &str)], main: &str) -> (Folder, Command) {
    let folder = Folder::new();
    for (name, source) in scripts {
        folder.write(name, source);
    }
    let main = folder.write("main.lua", format!("local here = arg[0]:match('^(.*)/')\n{main}"));
    let mut command = node_lua();
    command.arg(main);
    (folder, command)
}

/// Builds a C file of `tests/c/` as a module; returns what finds it in `package.cpath`.
pub(crate) fn c_module(folder: &Folder, name: &str) -> String {
    let source = repository(&format!("tests/c/{name}.c"));
    let object = folder.path(&format!("{name}.so"));
    run(Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(object).arg(source)).succeeded();
    folder.path("?.so").display().to_string()
}

/// Connects to a server of this test; reads and writes give up after [`PATIENCE`].
pub(crate) fn connect(port: u16) -> TcpStream {
    let stream = TcpStream::connect(("127.0.0.1", port)).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    stream.set_nodelay(true).unwrap();
    stream
}

/// A port for streams and for datagrams that nobody else uses until this process ends. The system
/// chooses no such port for anybody (`ip_local_port_range`), nor for an attempt to connect to it,
/// which would meet itself; and a process that has taken one holds a unix socket of its name, which
/// no other test can have then.
pub(crate) fn free_port() -> u16 {
    const FIRST: u32 = 27_000;
    const COUNT: u32 = 5_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    static TAKEN: Mutex<Vec<UnixListener>> = Mutex::new(Vec::new());
    for _ in 0..COUNT {
        let number = NEXT.fetch_add(1, Ordering::Relaxed).wrapping_add(97 * std::process::id());
        let port = u16::try_from(FIRST + number % COUNT).unwrap();
        let name = SocketAddr::from_abstract_name(format!("node-lua test port {port}")).unwrap();
        let Ok(taken) = UnixListener::bind_addr(&name) else { continue };
        let is_free = TcpListener::bind(("127.0.0.1", port)).is_ok()
            && UdpSocket::bind(("127.0.0.1", port)).is_ok();
        if is_free {
            TAKEN.lock().unwrap().push(taken);
            return port;
        }
    }
    panic!("no port is free");
}

/// A body behind a big-endian head of two bytes.
pub(crate) fn frame(body: &[u8]) -> Vec<u8> {
    let mut bytes = u16::try_from(body.len()).unwrap().to_be_bytes().to_vec();
    bytes.extend_from_slice(body);
    bytes
}

/// A number in groups of seven bits, the lowest first; all but the last have their top bit set.
pub(crate) fn varint(mut number: u64) -> Vec<u8> {
    let mut bytes = Vec::new();
    while number >= 0x80 {
        bytes.push(number as u8 | 0x80);
        number >>= 7;
    }
    bytes.push(number as u8);
    bytes
}

/// Reads one frame with a big-endian head of two bytes.
pub(crate) fn read_frame(stream: &mut TcpStream) -> Vec<u8> {
    let mut head = [0; 2];
    stream.read_exact(&mut head).unwrap();
    let mut body = vec![0; usize::from(u16::from_be_bytes(head))];
    stream.read_exact(&mut body).unwrap();
    body
}

/// Everything the peer still sends, up to its end; a reset counts as an end.
pub(crate) fn read_rest(stream: &mut TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => bytes,
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionReset => bytes,
        Err(error) => panic!("waiting for the end of the connection: {error}"),
    }
}

/// Memory that a process has resident, where the system tells (`/proc`); 0 elsewhere.
pub(crate) fn resident_bytes(process: u32) -> u64 {
    let Ok(status) = fs::read_to_string(format!("/proc/{process}/status")) else { return 0 };
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// Waits until a process holds fewer bytes than that: what clients leave behind is let go once it
/// has noticed that they are gone.
pub(crate) fn wait_until_below(process: u32, bytes: u64) {
    let began = Instant::now();
    while resident_bytes(process) >= bytes {
        assert!(began.elapsed() < PATIENCE, "{} bytes, not {bytes}", resident_bytes(process));
        std::thread::sleep(Duration::from_millis(10));
    }
}

/// Runs the body of a test in a process of its own that may open several thousand files, whatever
/// the limit of this one is. `test` is the test's own name.
pub(crate) fn with_many_files(test: &str, body: impl FnOnce()) {
    const INSIDE: &str = "NODE_LUA_TEST_MANY_FILES";
    if std::env::var_os(INSIDE).is_some() {
        body();
        return;
    }
    let raise = "ulimit -n 8192 2>/dev/null || ulimit -n \"$(ulimit -Hn)\"; exec \"$@\"";
    let mut command = std::process::Command::new("sh");
    command.args(["-c", raise, "sh"]).arg(std::env::current_exe().unwrap());
    let done = run_for(command.args(["--exact", test]).env(INSIDE, "1"), 3 * PATIENCE);
    assert!(done.stdout.contains("1 passed"), "{done}");
    done.succeeded();
}
