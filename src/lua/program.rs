//! A script as a context runs it: its state, and one turn of it.

use std::cell::RefCell;
use std::ffi::{CString, c_int};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use mlua::ffi::{self, lua_State};

use super::command::CommandLine;
use super::confine::Deny;
use super::host::{self, Host};
use super::native;
use super::quota::Quota;
use super::settings::Settings;
use super::start::load_script;
use super::turn::COST_PER_TURN;
use crate::error::Code;
use crate::hint::{rare, rarely};
use crate::message::{Held, Value};
use crate::os::{stdio, thread};
use crate::sched::{Context, End, Outcome, Program};
use crate::vm::run::{Came, OUT_OF_MEMORY};
use crate::vm::stack::{TABLE, function};
use crate::vm::state::{Account, State};
use crate::vm::{chunk_cache, hook, prelude, standard};
use crate::{logging, lua, os, rt};

/// Where a script's text comes from.
#[derive(Debug)]
pub enum Source {
    /// A file. A relative path that leads to none is tried in this folder, that of the creator's
    /// script.
    File(PathBuf, Option<Arc<Path>>),
    /// Standard input, once what comes before has been done.
    Stdin,
    /// There is none.
    Nothing,
    /// A text with the name its errors bear.
    Text {
        /// As in `=stdin`, see `luaL_loadbuffer`.
        name: CString,
        /// The script.
        text: Vec<u8>,
    },
}

impl Source {
    /// The script does not load, without further reason.
    fn unexplained(&self) -> Vec<u8> {
        let name = match self {
            Source::File(path, _) => chunk_cache::shown(path).into_bytes(),
            _ => b"the script".to_vec(),
        };
        [b"cannot load ", name.as_slice(), b" (why is in the log: io is withheld from its creator)"]
            .concat()
    }
}

/// Where `require` looks.
#[derive(Debug)]
pub struct Paths {
    /// `package.path`.
    pub path: Vec<u8>,
    /// `package.cpath`.
    pub cpath: Vec<u8>,
}

/// What a context is to run.
#[derive(Debug)]
pub struct Script {
    /// The main chunk.
    pub source: Source,
    /// Its arguments.
    pub arguments: Vec<Value>,
    /// Where modules are found; `None` for where LuaJIT looks.
    pub paths: Option<Paths>,
    /// The command line, for the first context.
    pub command_line: Option<CommandLine>,
    /// What is withheld from it.
    pub deny: Deny,
    /// Counts all this against the memory limit of the creator, until the script starts.
    pub held: Option<Held>,
    /// Whether the creator may read no files: then only the log tells why the script does not load,
    /// since that may quote it.
    pub is_secret: bool,
    /// The quota of log entries that a confined creator shares with it.
    pub quota: Quota,
}

/// The script of a context, loaded or not.
pub struct LuaProgram {
    settings: Arc<Settings>,
    script: Option<Script>,
    running: Option<Running>,
}

struct Running {
    host: Box<RefCell<Host>>,
    /// Dropped by `Program::end`, inside `host::enter`: finalisers are scripts too.
    state: Option<State>,
    step: Step,
    /// Values on the driver's stack for when it is first resumed: the script and its arguments.
    arguments: c_int,
}

/// Why [`Running::state`] is there.
const HAS_STATE: &str = "a program that runs has a state";

/// What the driver does when it is resumed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Step {
    /// Runs the script's main chunk, up to its first wait.
    Start,
    /// A turn.
    Turn,
}

impl LuaProgram {
    /// A program that loads its script in its first turn.
    pub fn new(settings: &Arc<Settings>, script: Script) -> Box<LuaProgram> {
        Box::new(LuaProgram { settings: Arc::clone(settings), script: Some(script), running: None })
    }
}

impl Program for LuaProgram {
    fn turn(&mut self, context: &Arc<Context>) -> (Outcome, usize) {
        if let Some(script) = self.script.take() {
            rare();
            match Running::new(context, &self.settings) {
                Some(running) => self.running.insert(running).load(script),
                // It was interrupted.
                None if context.end_requested().is_some() => {}
                None => {
                    log::error!("{}: no memory for its state", context.label());
                    if context.parent().is_none() {
                        self.settings.fail();
                    }
                    context.destroy(End::Memory("no memory for its state".to_owned()));
                }
            }
        }
        match &mut self.running {
            Some(running) => {
                let result = running.turn();
                if os::stdio::fork::is_child() {
                    running.end_child();
                }
                running.account().output.end_turn();
                thread::end_turn();
                result
            }
            None => (Outcome::Ended, 1),
        }
    }

    fn explain_end(&mut self) {
        if let Some(running) = &self.running {
            running.explain_end();
        }
    }

    fn end(mut self: Box<Self>, context: &Arc<Context>, reason: &End) {
        stdio::flush();
        let has_failed = match (&self.running, &self.script) {
            (Some(running), _) => log_end(context, reason, &running.host.borrow().quota),
            (None, Some(script)) => log_end(context, reason, &script.quota),
            (None, None) => log_end(context, reason, &Quota::default()),
        };
        if let Some(mut running) = self.running.take() {
            running.host.get_mut().main_failed |= has_failed;
            running.close();
            // Finalisers may have printed.
            stdio::flush();
        }
    }
}

impl Running {
    fn new(context: &Arc<Context>, settings: &Arc<Settings>) -> Option<Running> {
        let state = State::new_small()?;
        let host = Host::new(context, settings);
        let raw = state.as_ptr();
        let ready = host::enter(&host, raw, || {
            state.fill(|lua| {
                native::open(lua);
                if settings.ignores_environment {
                    lua.push_boolean(true);
                    lua.set_field(ffi::LUA_REGISTRYINDEX, standard::NO_ENVIRONMENT);
                }
                lua.field(ffi::LUA_REGISTRYINDEX, TABLE);
                lua.push_table(0, CORE_FIELDS);
                lua.push_function(function(prelude::run_early));
                lua.push_function(function(native::first_word));
                lua.push_boolean(cfg!(feature = "json"));
                lua.push_boolean(cfg!(feature = "msgpack"));
                lua.push_boolean(cfg!(feature = "tls"));
                lua.push_boolean(cfg!(feature = "websocket"));
                lua.push_boolean(cfg!(feature = "http"));
                prelude::run(lua, "init", 9);
                lua.set_top(0);
                // No query has this token. Of its bits, those that a double holds.
                let seed = (rt::secret((context.id().to_bits(), u64::MAX)) >> 11) as f64;
                standard::withhold(lua, seed);
                if rt::is_simulated() {
                    lua.field(ffi::LUA_REGISTRYINDEX, TABLE);
                    prelude::run(lua, "core/simulation", 1);
                }
            })
        });
        if let Err(message) = ready {
            if context.end_requested().is_none() {
                let message = logging::text_of(&message);
                log::error!("{}: the library does not load: {message}", context.label());
            }
            host::enter(&host, raw, || drop(state));
            return None;
        }
        state.account().set_limit(context.limits().memory);
        if let Some(allowance) = context.allowance() {
            state.account().count_waste(allowance.empty_of_known(), context.limits().memory);
        }
        Some(Running { host, state: Some(state), step: Step::Turn, arguments: 0 })
    }

    fn raw(&self) -> *mut lua_State {
        self.state.as_ref().map_or(std::ptr::null_mut(), State::as_ptr)
    }

    /// Loads the script, for the driver to run.
    fn load(&mut self, mut script: Script) {
        let host = self.host.get_mut();
        host.deny = script.deny;
        host.quota = std::mem::take(&mut script.quota);
        let instead = script.is_secret.then(|| script.source.unexplained());
        let mut loaded = Ok(0);
        let state = self.state.as_ref().expect(HAS_STATE);
        let result = host::enter(&self.host, state.as_ptr(), || {
            state.protect(|lua| loaded = load_script(lua, script))
        });
        let instead = loaded.is_err().then_some(instead).flatten();
        match result.and(loaded) {
            Ok(arguments) => (self.step, self.arguments) = (Step::Start, arguments),
            Err(_) if self.is_cancelled() => {}
            Err(message) => {
                let host = self.host.get_mut();
                lua::log::report(host, log::Level::Error, &message);
                host.failure = Some(instead.unwrap_or(message));
            }
        }
    }

    /// Resumes the driver.
    fn resume(&mut self) -> Came {
        let arguments = std::mem::take(&mut self.arguments);
        let state = self.state.as_ref().expect(HAS_STATE);
        let raw = state.as_ptr();
        let came = host::enter(&self.host, raw, || state.resume(arguments));
        state.account().cut.finish(raw);
        came
    }

    fn turn(&mut self) -> (Outcome, usize) {
        let (next, unanswered) = loop {
            if self.step == Step::Turn && !self.is_cut() {
                let host = self.host.get_mut();
                host.turn.begin(&host.context);
            }
            match self.resume() {
                _ if rarely(self.account().exceeded()) => return self.fail(None),
                Came::Failed(message) => {
                    rare();
                    return self.fail(Some(message));
                }
                // Before the fork somebody has asked for it.
                Came::Cut if os::stdio::fork::is_child() => {}
                Came::Cut => {
                    rare();
                    return self.rest();
                }
                Came::Done(..) if os::stdio::fork::is_child() => return (Outcome::Ended, 0),
                Came::Done(..) if rarely(self.step == Step::Start) => {
                    self.step = Step::Turn;
                    self.account().settle();
                }
                Came::Done(next, unanswered) => break (next as i32, unanswered as usize),
            }
        };
        let host = self.host.get_mut();
        let cost = host.turn.take_cost();
        host.context.set_unanswered(unanswered);
        host.end_turn();
        if let Some(state) = &self.state {
            state.pace_collector();
            host.update_metrics(state.account());
        }
        let outcome = match next {
            _ if host.turn.is_ending => Outcome::Ended,
            _ if host.has_more() => Outcome::More,
            0 => Outcome::Ended,
            1 => Outcome::Idle,
            _ => Outcome::More,
        };
        if outcome == Outcome::Idle {
            host.turn.rest(&host.context);
        }
        if rarely(outcome == Outcome::Ended) {
            if let Some(reason) = host.end_reason.take() {
                host.context.destroy(End::Destroyed(Some(reason)));
            } else if let Some(failure) = host.failure.take() {
                host.context.destroy(End::Error(failure));
            }
        }
        (outcome, cost)
    }

    /// The turn is cut: what it has done so far takes effect, and what it has read makes room. Its
    /// cost is kept, so that the turn has an end.
    fn rest(&mut self) -> (Outcome, usize) {
        let host = self.host.get_mut();
        host.cut_turn();
        if let Some(state) = &self.state {
            host.update_metrics(state.account());
        }
        (Outcome::Cut, COST_PER_TURN)
    }

    fn is_cut(&self) -> bool {
        self.account().cut.is_cut()
    }

    fn account(&self) -> &Account {
        self.state.as_ref().expect(HAS_STATE).account()
    }

    /// Whether an error only tells that the context is being ended.
    fn is_cancelled(&self) -> bool {
        self.account().exceeded() || self.host.borrow().context.end_requested().is_some()
    }

    /// An error has left the driver, which catches those of scripts: so memory has run out, the
    /// turn was interrupted, the script did not start, or the runtime is at fault.
    #[cold]
    fn fail(&mut self, message: Option<Vec<u8>>) -> (Outcome, usize) {
        let raw = self.raw();
        let host = self.host.get_mut();
        let cost = host.turn.take_cost();
        let account = self.state.as_ref().expect(HAS_STATE).account();
        // Another state may come to lie at the same place: what this one was doing is taken in any
        // case.
        let caught = hook::take_caught(raw);
        let message = message.unwrap_or_default();
        let context = &host.context;
        if account.exceeded() || message == OUT_OF_MEMORY.as_bytes() {
            let limit = context.limits().memory;
            let mut text = format!(
                "{} bytes in Lua, {} in buffers, {} wanted in all, limit {limit}",
                account.lua_bytes(),
                account.external_bytes(),
                account.wanted_bytes(),
            );
            if account.wanted_bytes() < limit {
                text += &format!("; {} unused between them", account.wasted_bytes());
            }
            context.destroy(End::Memory(text));
        } else if let Some(end) = context.end_requested() {
            if let End::Time(None) = end {
                context.explain_end(End::Time(caught));
            }
        } else {
            match self.step {
                Step::Start => lua::log::report(host, log::Level::Error, &message),
                Step::Turn if !host.quota.admits_end(message.len(), context) => {}
                Step::Turn => {
                    log::error!("{}: {}; it ends", context.label(), logging::text_of(&message));
                }
            }
            host.context.destroy(End::Error(message));
        }
        (Outcome::Ended, cost)
    }

    /// Ends a process that was forked in this turn, which has no other threads. What waits to be
    /// written to sockets is the parent's business.
    fn end_child(&self) -> ! {
        let host = self.host.borrow();
        let Host { context, settings, quota, .. } = &*host;
        let ended = context.end_requested();
        let has_failed = host.main_failed | ended.is_some_and(|end| log_end(context, &end, quota));
        let status = if has_failed { 1 } else { settings.process.status().unwrap_or_default() };
        std::process::exit(i32::from(status))
    }

    /// Logs where a turn was cut that has exceeded its limit, and will not continue.
    fn explain_end(&self) {
        let context = &self.host.borrow().context;
        if let Some(End::Time(None)) = context.end_requested()
            && let Some(place) = self.account().cut.traceback()
        {
            context.explain_end(End::Time(Some(place)));
        }
    }

    fn close(&mut self) {
        self.host.get_mut().close_all();
        let raw = self.raw();
        let state = self.state.take();
        self.host.get_mut().turn.is_ending = true;
        host::enter(&self.host, raw, || drop(state));
        // Finalisers may have written or opened something.
        let host = self.host.get_mut();
        host.close_all();
        let Host { context, settings, .. } = host;
        if context.parent().is_none() {
            if host.main_failed {
                settings.fail();
            }
            if settings.process.exits_with_main() {
                settings.process.end(context.scheduler(), Some(settings.status()));
            }
        }
    }
}

/// Logs why a context did not live on: that of the main script looks like an error of it.
fn tell_end(context: &Context, text: &str) {
    match context.parent() {
        None => log::error!(target: logging::MAIN, "{text}"),
        Some(_) => log::error!(target: logging::SCRIPT, "{}: {text}", context.label()),
    }
}

/// Logs the end of a context that did not end by itself; true if its script is to blame for that.
fn log_end(context: &Arc<Context>, reason: &End, quota: &Quota) -> bool {
    let label = context.label();
    let is_admitted = |bytes| quota.admits_end(bytes, context);
    match reason {
        End::Normal | End::Destroyed(None) => false,
        // That has been logged.
        End::Error(_) => true,
        End::Destroyed(Some(reason)) => {
            if log::log_enabled!(log::Level::Info) && is_admitted(reason.len()) {
                log::info!("{label} destroyed: {}", logging::text_of(reason));
            }
            false
        }
        End::Memory(text) => {
            let code = Code::OUT_OF_MEMORY;
            let why = code.text();
            if is_admitted(text.len()) {
                tell_end(context, &format!("{why} ({}): {text}", code.0));
            }
            true
        }
        End::Time(place) => {
            let code = Code::TIME_LIMIT;
            let limit = context.limits().turn.unwrap_or_default().as_secs_f64();
            let place = place.as_deref().unwrap_or_default();
            let text = format!("{} of {limit} s ({})", code.text(), code.0);
            if is_admitted(place.len()) {
                tell_end(context, &format!("{text}\n{place}"));
            }
            true
        }
    }
}

/// About as many as the library's chunks share: the table need not grow by and by.
const CORE_FIELDS: usize = 40;
