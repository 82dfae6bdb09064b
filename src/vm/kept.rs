//! What the registry keeps for us under numbers, far from the small ones that `luaL_ref` hands out.

/// One for each: the compiler sees to it that no two are the same.
#[derive(Clone, Copy, Debug)]
#[repr(i64)]
pub(crate) enum Kept {
    /// Of buffers: their metatable, their environment, their methods.
    BufferMetatable = 0x6e6c_0001,
    BufferEnvironment,
    BufferMethods,
    /// The metatable of environments.
    Environments,
    /// The table `package`, and the function `module`, once they are there.
    Package,
    Module,
    /// Metatables that say what a table is to be written as.
    #[cfg(any(feature = "json", feature = "msgpack"))]
    Array,
    #[cfg(any(feature = "json", feature = "msgpack"))]
    Object,
    #[cfg(any(feature = "json", feature = "msgpack"))]
    EmptyArray,
    #[cfg(any(feature = "json", feature = "msgpack"))]
    Extension,
}
