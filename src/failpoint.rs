//! Failures on order, for tests: the N-th allocation, socket call or encoded message fails, or
//! a native function panics.
//!
//! Only in builds with debug assertions, where the environment variable `NODE_LUA_FAILPOINT` is
//! read once: `allocation 1234` fails that one, counted over the whole process from 1, and says so
//! on stderr; `gap all` and `signal all` fail every one; `count` fails nothing. Both print at the
//! end how many there were of each. In other builds [`fails`] is the constant `false`.
//!
//! # Examples
//! ```
//! use node_lua::failpoint::{Point, fails};
//!
//! assert!(!fails(Point::Allocation)); // nothing was ordered
//! ```

#[cfg(debug_assertions)]
use std::sync::LazyLock;
#[cfg(debug_assertions)]
use std::sync::atomic::{AtomicU64, Ordering};

/// What can be made to fail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Point {
    /// A VM asks for memory, or a buffer for a block.
    Allocation,
    /// A socket is made, bound, connected, accepted, read from or written to.
    Socket,
    /// A value is made a message.
    Encode,
    /// A native function looks at a number that scripts have given: it panics.
    Native,
    /// It is noticed that something from another process of the cluster is missing.
    Gap,
    /// A thread passes on a signal that is another thread's: it takes a while.
    Signal,
}

/// Whether this one is to fail.
#[inline(always)]
pub fn fails(point: Point) -> bool {
    #[cfg(debug_assertions)]
    return order().is_some_and(|order| order.meets(point));
    #[cfg(not(debug_assertions))]
    {
        let _ = point;
        false
    }
}

/// An error if this socket call is to fail.
///
/// # Errors
/// That of a descriptor table that is full.
#[inline(always)]
pub fn check_socket() -> std::io::Result<()> {
    if fails(Point::Socket) {
        return Err(std::io::Error::from_raw_os_error(libc::ENFILE));
    }
    Ok(())
}

/// Does nothing, unless a panic was ordered here.
///
/// # Panics
/// In a debug build, where `NODE_LUA_FAILPOINT` says so.
#[inline(always)]
pub fn check_native() {
    assert!(!fails(Point::Native), "a failpoint");
}

/// Returns late, if that was ordered. Async-signal-safe.
#[inline(always)]
pub fn delay_signal() {
    if fails(Point::Signal) {
        std::thread::sleep(std::time::Duration::from_micros(300));
    }
}

/// Says how many of each there were, if that was asked for.
pub fn report() {
    #[cfg(debug_assertions)]
    if let Some(order) = order() {
        // Relaxed: figures of threads that have ended, or whose last ones do not matter.
        let met = |point: Point| order.met[point as usize].load(Ordering::Relaxed);
        let [a, s, e, n, g, _] = Point::ALL.map(met);
        eprintln!("failpoint: allocation {a}, socket {s}, encode {e}, native {n}, gap {g}");
    }
}

#[cfg(debug_assertions)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Which {
    One(u64),
    All,
}

#[cfg(debug_assertions)]
#[derive(Debug, Default)]
struct Order {
    /// Which one fails; none for `count`.
    victim: Option<(Point, Which)>,
    met: [AtomicU64; 6],
}

#[cfg(debug_assertions)]
fn order() -> Option<&'static Order> {
    static ORDER: LazyLock<Option<Order>> = LazyLock::new(|| {
        let text = std::env::var("NODE_LUA_FAILPOINT").ok()?;
        let victim = match text.split_once(' ') {
            None => None,
            Some((name, number)) => {
                let point = Point::ALL.into_iter().find(|point| point.name() == name)?;
                let which = match number {
                    "all" => Which::All,
                    number => Which::One(number.parse().ok()?),
                };
                Some((point, which))
            }
        };
        Some(Order { victim, ..Order::default() })
    });
    ORDER.as_ref()
}

#[cfg(debug_assertions)]
impl Point {
    const ALL: [Point; 6] =
        [Point::Allocation, Point::Socket, Point::Encode, Point::Native, Point::Gap, Point::Signal];

    fn name(self) -> &'static str {
        match self {
            Point::Allocation => "allocation",
            Point::Socket => "socket",
            Point::Encode => "encode",
            Point::Native => "native",
            Point::Gap => "gap",
            Point::Signal => "signal",
        }
    }
}

#[cfg(debug_assertions)]
impl Order {
    fn meets(&self, point: Point) -> bool {
        // Relaxed: a count.
        let number = self.met[point as usize].fetch_add(1, Ordering::Relaxed) + 1;
        let Some((_, which)) = self.victim.filter(|victim| victim.0 == point) else { return false };
        let is_victim = which == Which::All || which == Which::One(number);
        if is_victim && which != Which::All {
            eprintln!("failpoint: {} {number} fails", point.name());
        }
        is_victim
    }
}
