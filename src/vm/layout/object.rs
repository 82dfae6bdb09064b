//! What values refer to, and what a state consists of.

use std::ffi::{c_int, c_void};
use std::marker::PhantomData;
use std::mem::offset_of;

use mlua::ffi::{self, lua_CFunction, lua_State};

use super::slot::{NIL, POINTER, STRING, Slot, TABLE, referred, tag};
use crate::message::Packed;

// The types of objects in their headers.
pub(crate) const KIND_TEXT: u8 = 4;
pub(crate) const KIND_PROTOTYPE: u8 = 7;
pub(crate) const KIND_FUNCTION: u8 = 8;
pub(crate) const KIND_TABLE: u8 = 11;
pub(crate) const KIND_USERDATA: u8 = 12;

/// Of the userdata that `io` makes.
pub(crate) const SUBKIND_FILE: u8 = 1;

/// The two colours of what was not yet seen by the collector.
pub(crate) const WHITES: u8 = 3;

/// The mark of what was seen, with all that it refers to.
pub(crate) const SEEN: u8 = 4;

/// The start of a coroutine's, or state's, object.
#[repr(C)]
pub(crate) struct Thread {
    header: [u64; 2],
    pub(crate) global: *mut Global,
    collector_list: u64,
    pub(crate) base: *mut Slot,
    pub(crate) top: *mut Slot,
    /// Where the stack ends that it has so far.
    pub(crate) end: *mut Slot,
    stack: [u64; 2],
    pub(crate) environment: *mut Table,
}

/// What the coroutines of a state share.
#[repr(C)]
pub(crate) struct Global {
    pub(crate) allocate: *const c_void,
    pub(crate) user: *const c_void,
    /// Bytes allocated, and from how many on the collector works; the colour of new objects.
    pub(crate) total: usize,
    pub(crate) threshold: usize,
    pub(crate) white: u8,
    /// Which part of its cycle the collector is in; 0 between two of them.
    pub(crate) phase: u8,
    unused: [u8; 2],
    strings_swept: u32,
    /// The object made last; each refers to the one before.
    pub(crate) root: u64,
    collector: [u64; 9],
    empty_string: [u64; 3],
    empty_end: u8,
    /// Which events call the hook, and whether one, or a finaliser, runs.
    pub(crate) hook_mask: u8,
    dispatch: [u8; 2],
    pub(crate) texts: Texts,
    vm_state: i32,
    main: u64,
    temporary: [u64; 6],
    pub(crate) nil_node: Node,
    registry: Slot,
    vm_thread: u64,
    open_upvalues: [u64; 6],
    /// Instructions until the hook is called, and what that starts from.
    pub(crate) hook_count: c_int,
    pub(crate) hook_start: c_int,
    pub(crate) hook: Option<ffi::lua_Hook>,
    calls: [u64; 3],
    /// The coroutine that runs.
    pub(crate) current: *mut lua_State,
    /// The compiler's stack, the FFI's types, random numbers.
    others: [u64; 6],
    names: [u64; 22],
    /// The metatables of types, by the complement of their tags.
    pub(crate) metatables: [u64; 14],
    input: u64,
    /// The file that `io.write` writes to, a userdata.
    pub(crate) output: *mut Userdata,
    finalisers: u64,
    compiler: [u32; 59],
    /// What the trace compiler does; 0 if it is idle and has nothing left to do.
    pub(crate) compiler_state: u32,
}

/// Where a state finds each of its strings, of which there are no two alike.
#[repr(C)]
pub(crate) struct Texts {
    /// The first of each chain; where many had the same hash the lowest bit is set.
    pub(crate) chains: *mut u64,
    /// Chains, less one; with more strings than chains there are to be more of those.
    pub(crate) mask: u32,
    /// Strings.
    pub(crate) count: u32,
    /// What the next string gets, and how many until that is a random number again.
    pub(crate) id: u32,
    pub(crate) ids_left: u8,
    flags: [u8; 3],
    /// Secret of the state: no script can choose strings of one hash.
    pub(crate) seed: u64,
}

/// A table.
#[repr(C)]
#[derive(Debug)]
pub struct Table {
    pub(crate) next: u64,
    pub(crate) marked: u8,
    pub(crate) kind: u8,
    /// A bit for each metamethod that was looked for, and is not there.
    pub(crate) absent: u8,
    /// Slots of an array part that is in the same block.
    pub(crate) inside: u8,
    padding: u32,
    /// The array part, of which the first slot is that of key 0 …
    pub array: *mut Slot,
    collector_list: u64,
    /// The address of its metatable, or 0.
    pub metatable: u64,
    /// The hash part.
    pub nodes: *mut Node,
    /// … and has this many slots.
    pub array_len: u32,
    /// Nodes, less one.
    pub mask: u32,
    /// From here on all nodes are taken.
    pub free: *mut Node,
}

/// An entry of a table's hash part.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Node {
    /// The value, nil for none.
    pub value: Slot,
    /// The key.
    pub key: Slot,
    /// The next one in the chain of keys that have the same place.
    pub next: *mut Node,
}

/// A value in something that is alive for `'a`: what it refers to lives as long.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct Live<'a>(Slot, PhantomData<&'a Table>);

impl<'a> Live<'a> {
    #[inline]
    pub(crate) fn slot(self) -> Slot {
        self.0
    }

    /// The bytes of a string.
    #[inline]
    pub(crate) fn text(self) -> Option<&'a [u8]> {
        self.text_with_zero().map(|text| &text[..text.len() - 1])
    }

    /// The same, if they are few.
    #[inline]
    pub(crate) fn packed(self) -> Option<Packed> {
        if tag(self.0) != STRING {
            return None;
        }
        let object = referred::<Text>(self.0);
        // SAFETY: the string that the slot refers to is alive. Its bytes follow its object, which
        // has more than sixteen.
        unsafe {
            let len = (*object).len as usize;
            let end = object.add(1).cast::<u8>().add(len);
            (len <= Packed::LEN_MAX)
                .then(|| Packed::at_end(end.sub(16).cast::<[u8; 16]>().read(), len))
        }
    }

    /// The same with the zero that follows them.
    #[inline]
    pub(crate) fn text_with_zero(self) -> Option<&'a [u8]> {
        let object = referred::<Text>(self.0);
        // SAFETY: the string that the slot refers to is alive; its bytes follow its object, and a
        // zero follows them.
        (tag(self.0) == STRING).then(|| unsafe {
            std::slice::from_raw_parts(object.add(1).cast(), (*object).len as usize + 1)
        })
    }

    #[inline]
    pub(crate) fn table(self) -> Option<&'a Table> {
        // SAFETY: the table that the slot refers to is alive.
        (tag(self.0) == TABLE).then(|| unsafe { &*referred::<Table>(self.0) })
    }
}

impl Table {
    /// The array part; what is at 0 comes first.
    #[inline]
    pub(crate) fn array(&self) -> &[Slot] {
        if self.array_len == 0 {
            return &[];
        }
        // SAFETY: the array part has this many slots.
        unsafe { std::slice::from_raw_parts(self.array, self.array_len as usize) }
    }

    /// The hash part, with entries that are nil.
    #[inline]
    pub(crate) fn hash(&self) -> &[Node] {
        // SAFETY: the hash part has one node more than its mask says.
        unsafe { std::slice::from_raw_parts(self.nodes, self.mask as usize + 1) }
    }

    /// What is in the array part.
    #[inline]
    pub(crate) fn values(&self) -> impl Iterator<Item = Live<'_>> {
        self.array().iter().map(|&slot| Live(slot, PhantomData))
    }

    /// Keys and values of the hash part.
    #[inline]
    pub(crate) fn pairs(&self) -> impl Iterator<Item = (Live<'_>, Live<'_>)> {
        let entries = self.hash().iter().filter(|node| node.value != NIL);
        entries.map(|node| (Live(node.key, PhantomData), Live(node.value, PhantomData)))
    }
}

/// A string; its bytes follow.
#[repr(C)]
#[derive(Debug)]
pub struct Text {
    pub(crate) next: u64,
    pub(crate) marked: u8,
    pub(crate) kind: u8,
    pub(crate) flags: [u8; 2],
    /// What its hash follows from in a table.
    pub id: u32,
    /// Of all its bytes, or of some; `flags` say which.
    pub(crate) hash: u32,
    /// Bytes, without the zero behind them.
    pub(crate) len: u32,
}

/// A userdata; its content follows.
#[repr(C)]
pub(crate) struct Userdata {
    pub(crate) next: u64,
    pub(crate) marked: u8,
    pub(crate) kind: u8,
    pub(crate) subkind: u8,
    pub(crate) unused: u8,
    pub(crate) environment: u64,
    /// Bytes of the content.
    pub(crate) length: u32,
    pub(crate) metatable: u64,
    pub(crate) padding: u64,
}

/// A value of the FFI; its content follows.
#[repr(C)]
#[derive(Debug)]
pub struct Cdata {
    next: u64,
    marked: u8,
    kind: u8,
    /// The number of its type.
    pub of: u16,
}

/// The start of a function, in Lua or C.
#[repr(C)]
pub(crate) struct Function {
    pub(crate) next: u64,
    marked: u8,
    pub(crate) kind: u8,
    /// Which of the VM's own functions it is; above [`NUMBER_C`].
    pub(crate) number: u8,
    upvalues: u8,
    environment: u64,
    collector_list: u64,
    /// Its instructions.
    pub(crate) code: u64,
    /// Of those in C.
    pub(crate) function: lua_CFunction,
    /// Likewise, if it has any; others follow.
    pub(crate) upvalue: Slot,
}

/// What is not one of the VM's own functions, but in C.
pub(crate) const NUMBER_C: u8 = 1;

/// What functions of the same code share; the instructions follow.
#[repr(C)]
pub(crate) struct Prototype {
    next: u64,
    marked: u8,
    pub(crate) kind: u8,
    parameters: u8,
    frame: u8,
    /// How many follow.
    pub(crate) instructions: u32,
    unused: u32,
    collector_list: u64,
    /// Points behind the objects.
    constants: *const *mut Prototype,
    upvalue_list: u64,
    /// Constants that are objects, and those that are numbers; bytes of all that is in this block.
    pub(crate) objects: u32,
    numbers: u32,
    bytes: u32,
    /// Variables of functions around it that it uses, 60 at most.
    pub(crate) upvalues: u8,
    flags: u8,
    trace: u16,
    pub(crate) name: u64,
    /// The line where it starts, and how many lines there are besides.
    pub(crate) first_line: i32,
    pub(crate) lines: i32,
    /// For each instruction but the first how many lines it is after the first.
    pub(crate) line_table: *const u8,
    pub(crate) upvalue_names: *const u8,
    pub(crate) variables: *const u8,
}

/// The start of what the compiler keeps about a text.
#[repr(C)]
#[derive(Debug)]
pub struct Lexer {
    function: u64,
    /// The coroutine that has called the compiler.
    pub state: *mut lua_State,
}

const _: () = assert!(cfg!(target_pointer_width = "64") && size_of::<c_int>() == 4);
const _: () = assert!(offset_of!(Global, hook_mask) == 145 && offset_of!(Global, current) == 376);
const _: () = assert!(offset_of!(Global, output) == 728 && offset_of!(Thread, environment) == 72);
const _: () = assert!(offset_of!(Global, compiler) == 744 && size_of::<Prototype>() == 104);
const _: () = assert!(size_of::<Table>() == 64 && offset_of!(Table, array) == 16);
const _: () = assert!(size_of::<Text>() == 24 && offset_of!(Global, texts) == 152);
const _: () = assert!(size_of::<Userdata>() == 48 && size_of::<lua_CFunction>() == 8);

/// What the coroutines of a state share.
///
/// # Safety
/// `raw` must be a live state, used by this thread, or one of its coroutines.
#[inline]
pub(crate) unsafe fn global(raw: *mut lua_State) -> *mut Global {
    // SAFETY: a state begins like this.
    unsafe { (*raw.cast::<Thread>()).global }
}

/// The object at this place of the stack: a [`Table`], [`Function`] or [`Text`], as it may be.
///
/// # Safety
/// `raw` must be a live state, used by this thread, with an object there.
#[inline]
pub(crate) unsafe fn object<T>(raw: *mut lua_State, index: c_int) -> *mut T {
    // SAFETY: a live state.
    unsafe { ffi::lua_topointer(raw, index).cast_mut().cast() }
}

/// The upvalues of the function in C that runs, which has some.
///
/// # Safety
/// `raw` must be running such a function, used by this thread.
#[inline]
pub(crate) unsafe fn upvalues(raw: *mut lua_State) -> *mut Slot {
    // SAFETY: below its arguments a function has itself, and the place to return to.
    unsafe {
        let function: *mut Function = referred((*raw.cast::<Thread>()).base.sub(2).read());
        &raw mut (*function).upvalue
    }
}

/// What the frame of the function that runs returns to: a place in its caller's code, or, of what C
/// has called, how far down the stack that is. Whoever is called in its place has the same.
///
/// # Safety
/// `raw` must be running a function, used by this thread.
pub(crate) unsafe fn return_address(raw: *mut lua_State) -> u64 {
    // SAFETY: it lies right below the function's arguments.
    unsafe { (*raw.cast::<Thread>()).base.sub(1).cast::<u64>().read() }
}

/// How far above the place where it was called the frame is that returns there: that of a function
/// which takes any number of arguments has moved up.
pub(crate) fn arguments_shift(return_address: u64) -> c_int {
    const KIND: u64 = 7;
    const MOVED: u64 = 3;
    let has_moved = return_address & KIND == MOVED;
    if has_moved { (return_address / size_of::<Slot>() as u64) as c_int } else { 0 }
}

unsafe extern "C-unwind" {
    /// LuaJIT's: memory of the VM's. Raises if there is none; runs no finalisers.
    pub(crate) fn lj_mem_realloc(
        raw: *mut lua_State,
        block: *mut c_void,
        before: usize,
        now: usize,
    ) -> *mut c_void;
}

/// The prototype of the function at this place of the stack.
///
/// # Safety
/// `raw` must be a live state, used by this thread, with a Lua function there.
pub(crate) unsafe fn prototype(raw: *mut lua_State, index: c_int) -> *mut Prototype {
    // SAFETY: a Lua function's object says where its instructions begin, behind the prototype.
    unsafe { ((*object::<Function>(raw, index)).code as usize as *mut Prototype).sub(1) }
}

/// The prototypes among the constants of one: of the functions inside it.
///
/// # Safety
/// `outer` must be a live prototype.
pub(crate) unsafe fn inner(outer: *const Prototype) -> impl Iterator<Item = *mut Prototype> {
    // SAFETY: a live prototype has this many objects, which begin with the same header.
    let objects = unsafe {
        let count = (*outer).objects as usize;
        std::slice::from_raw_parts((*outer).constants.sub(count), count)
    };
    // SAFETY: constants live as long as the prototype.
    objects.iter().copied().filter(|object| unsafe { (**object).kind == KIND_PROTOTYPE })
}

/// The bytes of the string that a slot refers to.
///
/// # Safety
/// The slot must hold a string that is live for as long as the bytes are used.
#[inline]
pub(crate) unsafe fn text<'a>(slot: Slot) -> &'a [u8] {
    let object = (slot & POINTER) as *const Text;
    // SAFETY: the slot refers to a string, whose bytes follow its object.
    unsafe { std::slice::from_raw_parts(object.add(1).cast(), (*object).len as usize) }
}
