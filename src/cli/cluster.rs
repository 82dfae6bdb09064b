//! Being part of a cluster, from `--cluster` to the end of the process.

use std::io;
use std::sync::Arc;

use super::args::Run;
use crate::sched::Scheduler;

/// What the process is called where nobody has said so.
#[cfg(feature = "cluster")]
fn default_name() -> String {
    let host = std::fs::read_to_string("/proc/sys/kernel/hostname").unwrap_or_default();
    let host = host.trim();
    format!("{}-{}", if host.is_empty() { "node" } else { host }, std::process::id())
}

/// Makes the process part of the cluster that was asked for, before any context runs, if that takes
/// no more than some seconds. It leaves it when it exits, however a script has it do so.
///
/// # Errors
/// Addresses or files that make no sense.
#[cfg(feature = "cluster")]
pub(super) fn join(run: &Run, scheduler: &Arc<Scheduler>) -> io::Result<()> {
    use crate::cluster::{Node, nats};

    extern "C" fn on_exit(_: std::ffi::c_int) {
        leave();
    }

    let Some(mut options) = run.cluster.clone() else { return Ok(()) };
    let environment = || std::env::var_os("NODE_LUA_CLUSTER_CREDS").map(Into::into);
    options.credentials = options.credentials.or_else(environment);
    let node = Node::new(run.node.clone().unwrap_or_else(default_name), scheduler);
    scheduler.join(Arc::clone(&node) as _);
    nats::start(&options, &node)?;
    if NODE.set(Arc::clone(&node)).is_ok() {
        crate::os::exit::at_exit(on_exit);
    }
    node.wait_until_joined();
    Ok(())
}

/// The process in the cluster, if it is in one.
#[cfg(feature = "cluster")]
static NODE: std::sync::OnceLock<Arc<crate::cluster::Node>> = std::sync::OnceLock::new();

/// Tells the others that the process ends in order, once what was to be sent is.
pub(super) fn leave() {
    #[cfg(feature = "cluster")]
    if let Some(node) = NODE.get().filter(|_| !crate::os::stdio::fork::is_child()) {
        node.leave(std::time::Duration::from_secs(1));
    }
}

/// There is no cluster to be part of.
///
/// # Errors
/// If one was asked for.
#[cfg(not(feature = "cluster"))]
pub(super) fn join(run: &Run, _: &Arc<Scheduler>) -> io::Result<()> {
    match run.cluster {
        None => Ok(()),
        Some(_) => Err(io::Error::other("--cluster: node-lua was built without feature `cluster`")),
    }
}

#[cfg(feature = "cluster")]
pub(super) use simulated::simulate;

/// There is no cluster to simulate.
#[cfg(not(feature = "cluster"))]
pub(super) fn simulate(
    _: &Run,
    _: f64,
    _: usize,
    _: &Arc<Scheduler>,
) -> Option<Arc<std::sync::Mutex<Vec<Arc<Scheduler>>>>> {
    super::run::complain("--nodes: node-lua was built without feature `cluster`");
    None
}

#[cfg(feature = "cluster")]
mod simulated {
    use std::ffi::OsString;
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use super::super::args::Run;
    use super::super::run::prepare;
    use crate::cluster::{Bus, Node};
    use crate::rt;
    use crate::sched::{End, Scheduler};
    use crate::sync::lock;

    /// Processes that have come since the simulation last looked.
    pub(in crate::cli) type Added = Mutex<Vec<Arc<Scheduler>>>;

    /// A process: its number, its contexts, and what it is in the cluster.
    type Living = (usize, Arc<Scheduler>, Arc<Node>);

    /// The processes of a simulated cluster.
    struct World {
        run: Run,
        bus: Arc<Bus>,
        added: Arc<Added>,
        living: Mutex<Vec<Living>>,
    }

    fn below(count: u64) -> u64 {
        rt::random_words().unwrap_or_default()[0] % count
    }

    /// The first process of a simulated cluster is there; makes the others, `count` in all, each of
    /// which runs the same script. The first one ends the simulation. Meanwhile things go wrong,
    /// and others are killed and come back. `None`, after the reason was printed, if that fails.
    pub(in crate::cli) fn simulate(
        run: &Run,
        faults: f64,
        count: usize,
        first: &Arc<Scheduler>,
    ) -> Option<Arc<Added>> {
        let bus = Bus::new(faults);
        let (added, living) = (Arc::<Added>::default(), Mutex::default());
        let world = World { run: run.clone(), bus, added: Arc::clone(&added), living };
        let world = Arc::new(world);
        world.add(0, first);
        for index in 1..count {
            world.create(index)?;
        }
        let ending = Arc::clone(&world);
        let main = Arc::clone(first);
        rt::spawn(async move {
            while !main.registry().is_empty() {
                rt::sleep(Duration::from_millis(10)).await;
            }
            ending.end();
        });
        if faults > 0.0 {
            rt::spawn(async move { world.trouble(faults).await });
        }
        Some(added)
    }

    impl World {
        fn add(&self, index: usize, scheduler: &Arc<Scheduler>) {
            let node = Node::new(format!("n{}", index + 1), scheduler);
            scheduler.join(Arc::clone(&node) as _);
            self.bus.connect(&node);
            lock(&self.added).push(Arc::clone(scheduler));
            let mut living = lock(&self.living);
            living.push((index, Arc::clone(scheduler), node));
        }

        fn create(&self, index: usize) -> Option<()> {
            let (scheduler, _) = prepare(&OsString::from("node-lua"), &self.run, 1)?;
            self.add(index, &scheduler);
            Some(())
        }

        /// The first process has ended: so do the others.
        fn end(&self) {
            let living = std::mem::take(&mut *lock(&self.living));
            for (_, scheduler, node) in living {
                self.bus.kill(&node);
                scheduler.destroy_all(&End::Destroyed(None));
            }
        }

        /// Things go wrong, one after the other.
        async fn trouble(self: Arc<Self>, faults: f64) {
            loop {
                let pause = below((4e9 / faults.max(0.01)) as u64);
                rt::sleep(Duration::from_nanos(pause)).await;
                let count = lock(&self.living).len();
                match below(3) {
                    _ if count == 0 => return,
                    0 if count > 1 => self.kill(1 + below(count as u64 - 1) as usize).await,
                    _ => self.bus.disturb().await,
                }
            }
        }

        /// Kills a process, from one moment to the next; it comes back.
        async fn kill(&self, which: usize) {
            let (index, scheduler, node) = lock(&self.living).remove(which);
            self.bus.kill(&node);
            scheduler.destroy_all(&End::Destroyed(None));
            rt::sleep(Duration::from_nanos(below(6_000_000_000))).await;
            let is_over = lock(&self.living).is_empty();
            if !is_over {
                let _ = self.create(index);
            }
        }
    }
}
