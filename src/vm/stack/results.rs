//! What native functions return.

use std::ffi::c_int;
use std::sync::Arc;

use super::Stack;

/// What a native function hands to its caller, which is pushed once the function itself is over:
/// nothing of it borrows anything any more that a finaliser could want.
pub trait Results {
    /// Pushes them; returns how many values these are. Drops what it owns if memory runs out, which
    /// raises.
    fn give(self, lua: Stack<'_>) -> c_int;
}

/// What is one value.
pub trait Single {
    /// Pushes it; may raise if memory runs out.
    fn push_one(self, lua: Stack<'_>);
}

/// Nil, in front of others.
#[derive(Clone, Copy, Debug)]
pub struct Nil;

/// A whole number below 2^63: see [`Stack::push_whole`].
#[derive(Clone, Copy, Debug)]
pub struct Whole(pub u64);

/// Says how some types are pushed.
macro_rules! singles {
    ($($kind:ty: |$lua:ident, $value:ident| $push:expr;)*) => {
        $(
            impl $crate::vm::stack::Single for $kind {
                #[inline]
                fn push_one(self, $lua: $crate::vm::stack::Stack<'_>) {
                    let $value = self;
                    $push;
                }
            }

            impl $crate::vm::stack::Results for $kind {
                #[inline]
                fn give(self, lua: $crate::vm::stack::Stack<'_>) -> std::ffi::c_int {
                    $crate::vm::stack::Single::push_one(self, lua);
                    1
                }
            }
        )*
    };
}
pub(crate) use singles;

singles! {
    Nil: |lua, _value| lua.push_nil();
    Whole: |lua, value| lua.push_whole(value.0);
    bool: |lua, value| lua.push_boolean(value);
    f64: |lua, value| lua.push_number(value);
    u8: |lua, value| lua.push_number(f64::from(value));
    u16: |lua, value| lua.push_number(f64::from(value));
    u32: |lua, value| lua.push_number(f64::from(value));
    u64: |lua, value| lua.push_number(value as f64);
    usize: |lua, value| lua.push_number(value as f64);
    &[u8]: |lua, value| lua.push_text(value);
    &str: |lua, value| lua.push_text(value.as_bytes());
    Vec<u8>: |lua, value| lua.push_text(&value);
    String: |lua, value| lua.push_text(value.as_bytes());
    Box<str>: |lua, value| lua.push_text(value.as_bytes());
    Arc<str>: |lua, value| lua.push_text(value.as_bytes());
}

/// One, or nil.
impl<V: Single> Single for Option<V> {
    #[inline]
    fn push_one(self, lua: Stack<'_>) {
        match self {
            Some(value) => value.push_one(lua),
            None => lua.push_nil(),
        }
    }
}

/// As many as this, which are on top already.
impl Results for c_int {
    #[inline]
    fn give(self, _: Stack<'_>) -> c_int {
        self
    }
}

/// None.
impl Results for () {
    #[inline]
    fn give(self, _: Stack<'_>) -> c_int {
        0
    }
}

/// Some, or none.
impl<R: Results> Results for Option<R> {
    #[inline]
    fn give(self, lua: Stack<'_>) -> c_int {
        self.map_or(0, |results| results.give(lua))
    }
}

/// One or the other.
impl<R: Results, E: Results> Results for Result<R, E> {
    #[inline]
    fn give(self, lua: Stack<'_>) -> c_int {
        match self {
            Ok(results) => results.give(lua),
            Err(results) => results.give(lua),
        }
    }
}

/// So many, any of which may be nil.
impl<V: Single, const COUNT: usize> Results for [V; COUNT] {
    #[inline]
    fn give(self, lua: Stack<'_>) -> c_int {
        self.into_iter().for_each(|value| value.push_one(lua));
        COUNT as c_int
    }
}

/// One, and others.
impl<V: Single, R: Results> Results for (V, R) {
    #[inline]
    fn give(self, lua: Stack<'_>) -> c_int {
        self.0.push_one(lua);
        1 + self.1.give(lua)
    }
}

/// Two, and others.
impl<V: Single, W: Single, R: Results> Results for (V, W, R) {
    #[inline]
    fn give(self, lua: Stack<'_>) -> c_int {
        (self.0, (self.1, self.2)).give(lua)
    }
}
