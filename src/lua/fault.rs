//! Failures of the runtime itself: a panic ends the context in which it comes, and no other.

use std::any::Any;
use std::panic::resume_unwind;
use std::sync::{Arc, Once};

use crate::lua;
use crate::lua::host::{self, Host};
use crate::os::descriptors::on_shortage;
use crate::sched::{Context, End};
use crate::vm::hook::{arm, running};
use crate::vm::{blame, foreign_signals, hook, native, profiler, unwind};

/// Has panics in the turn of a context logged without the backtrace that may be asked for: where
/// machine code of scripts is on the stack, unwinding it for one aborts the process.
pub(super) fn set_panic_hook() {
    static SET: Once = Once::new();
    SET.call_once(|| {
        let usual = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| match host::is_entered() {
            true => log::error!("{panic}"),
            false => usual(panic),
        }));
    });
}

/// Prepares the VM for contexts; to be called before any runs.
pub fn init() {
    set_panic_hook();
    hook::init();
    profiler::on_failure(end_for_profiler);
    native::on_fault(|panic| fail(&host::context(), panic));
    unwind::on_panic(|panic| cancel(&host::context(), &*panic));
    blame::describe_with(super::tcp::describe);
    #[cfg(feature = "tls")]
    super::tls::init();
    on_shortage(super::shortage::relieve);
    foreign_signals::on_install(|| host::with(Host::signal_waker));
}

/// Ends the running context, whose callback for the profiler has raised this.
fn end_for_profiler(text: Vec<u8>) {
    host::with(|host| {
        if host.context.end_requested().is_some() {
            return;
        }
        lua::log::report(host, log::Level::Error, &text);
        host.main_failed = true;
        host.context.destroy(End::Error(text));
    });
}

/// Ends a context in which the runtime itself has failed, once it executes an instruction.
#[cold]
pub(super) fn cancel(context: &Arc<Context>, panic: &(dyn Any + Send)) {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("no message");
    let text = format!("the runtime failed: {text}");
    log::error!("{}: {text}; it ends", context.label());
    context.destroy(End::Error(text.into()));
    arm();
}

/// As [`host::with`], for functions that the machine code of scripts calls, which no Lua error may
/// pass through: should `body` panic, there is no result, and the context ends once the function
/// has returned.
#[inline]
pub(super) fn attempt<R>(body: impl FnOnce(&mut Host) -> R) -> Option<R> {
    match host::try_with(body) {
        Ok(result) => Some(result),
        Err(panic) => {
            cancel(&host::context(), &*panic);
            None
        }
    }
}

/// Ends one in whose native function that was: raises.
#[cold]
pub(super) fn fail(context: &Arc<Context>, panic: Box<dyn Any + Send>) -> ! {
    cancel(context, &*panic);
    if running().is_null() {
        resume_unwind(panic);
    }
    drop(panic);
    hook::raise_interrupted()
}
