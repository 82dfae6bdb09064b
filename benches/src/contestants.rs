//! Who takes part: what is on this machine, and how each is started for a row.

use std::env;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::child::Program;

/// A contestant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Who {
    /// The hand-written limit in Rust.
    Raw,
    /// async-std without Lua.
    AsyncStd,
    /// The project.
    NodeLua,
    /// An older binary of the project, to see what a change has cost.
    Before,
    /// LuaJIT with lua-luv.
    Luv,
    /// Node.js.
    NodeJs,
    /// Go.
    Go,
    /// Erlang.
    Erlang,
    /// LuaJIT as node-lua has it, with nothing around it.
    LuaJit,
    /// Debian's LuaJIT.
    LuaJitDebian,
}

/// In the order of the tables.
pub const ALL: [Who; 10] = [
    Who::Raw,
    Who::AsyncStd,
    Who::NodeLua,
    Who::Before,
    Who::Luv,
    Who::NodeJs,
    Who::Go,
    Who::Erlang,
    Who::LuaJit,
    Who::LuaJitDebian,
];

impl Who {
    /// The name for tables and options.
    pub fn name(self) -> &'static str {
        match self {
            Who::Raw => "raw",
            Who::AsyncStd => "async-std",
            Who::NodeLua => "node-lua",
            Who::Before => "before",
            Who::Luv => "luv",
            Who::NodeJs => "nodejs",
            Who::Go => "go",
            Who::Erlang => "erlang",
            Who::LuaJit => "luajit",
            Who::LuaJitDebian => "luajit-debian",
        }
    }

    /// Rows it has a program for.
    fn has(self, row: &str) -> bool {
        let rows: &[&str] = match self {
            Who::Raw => &["echo", "broadcast", "idle", "futex", "accessors"],
            Who::AsyncStd => &["echo", "idle"],
            Who::NodeLua | Who::Before => return true,
            Who::Luv => &["echo", "broadcast", "idle", "timers"],
            Who::NodeJs => &["echo", "udp", "broadcast", "idle", "query", "flood", "timers"],
            Who::Go => {
                &["echo", "udp", "gate", "broadcast", "idle", "query", "flood", "create", "timers"]
            }
            Who::Erlang => {
                &["echo", "gate", "broadcast", "idle", "query", "flood", "create", "timers"]
            }
            Who::LuaJit | Who::LuaJitDebian => &["generators"],
        };
        rows.contains(&row)
    }
}

impl fmt::Display for Who {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// Those found on this machine, built and ready.
#[derive(Debug)]
pub struct Contestants {
    found: Vec<(Who, PathBuf)>,
    /// One line for each that is missing.
    pub skipped: Vec<String>,
    built: PathBuf,
}

impl Contestants {
    /// Looks for each contestant in `wanted` and builds those that need it.
    pub fn find(wanted: &[Who], node_lua: &Path, before: Option<&Path>) -> Contestants {
        let built = root().join("../target/bench-contestants");
        let mut all = Contestants { found: Vec::new(), skipped: Vec::new(), built };
        for &who in wanted {
            let binary = match who {
                Who::Before => before,
                _ => Some(node_lua),
            };
            let Some(binary) = binary else { continue };
            match all.look_for(who, binary) {
                Ok(path) => all.found.push((who, path)),
                Err(reason) => all.skipped.push(format!("{who} skipped: {reason}")),
            }
        }
        all
    }

    fn look_for(&self, who: Who, node_lua: &Path) -> Result<PathBuf, String> {
        match who {
            Who::Raw | Who::AsyncStd | Who::LuaJit => env::current_exe().map_err(|e| e.to_string()),
            Who::NodeLua | Who::Before if node_lua.is_file() => Ok(node_lua.to_path_buf()),
            Who::NodeLua | Who::Before => Err(format!("no binary at {}", node_lua.display())),
            Who::NodeJs => on_path("node"),
            Who::LuaJitDebian => on_path("luajit"),
            Who::Luv => {
                let luajit = on_path("luajit")?;
                run(Command::new(&luajit).args(["-e", "require('luv')"]))
                    .map_err(|_| "lua-luv is not installed".to_owned())?;
                Ok(luajit)
            }
            Who::Go => {
                let go = on_path("go")?;
                self.make_folder()?;
                let out = self.built.join("peer-go");
                let source = root().join("contestants/peer.go");
                run(Command::new(go).args(["build", "-o"]).arg(&out).arg(source))?;
                Ok(out)
            }
            Who::Erlang => {
                let erl = on_path("erl")?;
                self.make_folder()?;
                let source = root().join("contestants/bench_peer.erl");
                run(Command::new(on_path("erlc")?).arg("-o").arg(&self.built).arg(source))?;
                Ok(erl)
            }
        }
    }

    fn make_folder(&self) -> Result<(), String> {
        std::fs::create_dir_all(&self.built).map_err(|e| e.to_string())
    }

    /// Those that take part in `row`.
    pub fn of(&self, row: &str) -> Vec<Who> {
        self.found.iter().map(|f| f.0).filter(|who| who.has(row)).collect()
    }

    /// How to start `who` for `row` on so many workers.
    ///
    /// # Errors
    ///
    /// When it is not there.
    pub fn program(
        &self,
        who: Who,
        row: &str,
        workers: usize,
        arguments: &[String],
    ) -> Result<Program, String> {
        let path = self.found.iter().find(|f| f.0 == who).map(|f| f.1.clone());
        let start = Program::new(path.ok_or_else(|| format!("no {who} on this machine"))?);
        let scripts = root().join("scripts");
        let script = scripts.join(format!("{row}.lua"));
        Ok(match who {
            Who::Raw => start.arg("serve").arg(format!("raw-{row}")).args(arguments),
            Who::AsyncStd => start.arg("serve").arg("async-std-echo").args(arguments),
            Who::NodeLua | Who::Before => {
                let start = start.arg("--workers").arg(workers.to_string());
                start.arg(script).arg(scripts).args(arguments)
            }
            Who::LuaJit => start.arg("serve").arg("lua").arg(script).arg(scripts).args(arguments),
            Who::LuaJitDebian => start.arg(script).arg(scripts).args(arguments),
            Who::Luv => start.arg(root().join("contestants/peer.lua")).arg(row).args(arguments),
            Who::NodeJs => start.arg(root().join("contestants/peer.js")).arg(row).args(arguments),
            Who::Go => start.arg(row).args(arguments).env("GOMAXPROCS", workers),
            Who::Erlang => {
                let start = start.arg("+S").arg(format!("{workers}:{workers}"));
                let flags = ["+Q", "65536", "+P", "262144", "-noshell", "-pa"];
                let start = start.args(&flags.map(str::to_owned)).arg(&self.built);
                let start = start.env("ERL_CRASH_DUMP_BYTES", 0);
                start.args(&["-run", "bench_peer", "main", row].map(str::to_owned)).args(arguments)
            }
        })
    }
}

/// The folder of this crate.
pub fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn on_path(name: &str) -> Result<PathBuf, String> {
    let path = env::var_os("PATH").unwrap_or_default();
    let found = env::split_paths(&path).map(|d| d.join(name)).find(|p| p.is_file());
    found.ok_or_else(|| format!("{name} is not installed"))
}

fn run(command: &mut Command) -> Result<(), String> {
    let done = command.stdin(Stdio::null()).output().map_err(|e| e.to_string())?;
    if done.status.success() {
        return Ok(());
    }
    let errors = String::from_utf8_lossy(&done.stderr);
    Err(format!("{:?} failed: {}", command.get_program(), errors.trim()))
}
