-- The accessors of buffers that compile: bytes and raw pointers; those of numbers are in
-- buffer/number.lua, loaded with the first of them. Not for scripts, which see them as methods.
-- Offsets are zero-based.
--
-- Every accessor holds all of its checks itself. In compiled code the type check and the loads of
-- ptr and len leave the loop; what remains is the comparison with the length. `tobit(x) ~= x` is
-- true for whatever is no int32: NaN, fractions, huge numbers; for integers in compiled code it
-- costs nothing.
--
-- In code that is not compiled, making a pointer allocates, and whatever allocates may run a
-- finaliser, which is script code: it may release the buffer, have it grow, or send it. So each
-- pointer is made first, and only then is looked whether the buffer is still as it was (`address`
-- is the pointer as a number, which costs no allocation): between that look and the use of the
-- pointer nothing allocates. If it has changed, the accessor starts over. Compiled code runs no
-- finalisers, and the second look falls away.

local native = ...

local ffi = native.ffi("ffi")
local bit = bit

native.load "buffer/cdef"(native, "buffer.h")
ffi.cdef "void *memchr(const void *bytes, int byte, size_t len);"

local buffer, TOKEN = native.buffer_methods()
local memchr = ffi.C.memchr
local cast, copy, istype, text_of = ffi.cast, ffi.copy, ffi.istype, ffi.string
local tobit, band, rshift = bit.tobit, bit.band, bit.rshift
local getmetatable, floor, type, tonumber = getmetatable, math.floor, type, tonumber
local format, rawget, rawset, getinfo = string.format, rawget, rawset, debug.getinfo
local setmetatable = setmetatable
local bad, raise, buffer_reserve = native.bad, native.raise, native.buffer_reserve

-- Called, not cast to: it takes no string then, whatever the metatable of strings claims.
local view_t = ffi.typeof "nl_buffer *"
local bytes_t = ffi.typeof "const uint8_t *"
local int64, uint64 = ffi.typeof "int64_t", ffi.typeof "uint64_t"

local LIVE, UNIQUE = ffi.C.NL_BUFFER_LIVE, ffi.C.NL_BUFFER_UNIQUE
local SIZE_MAX = 0x7fffffff
local NAN = 0 / 0

-- Failure. A place is the position of an argument, or the words for something in one.

local function not_buffer(value, name) bad(1, name, "buffer", value) end

local function is_released(name)
    raise(
        name
            .. ": buffer is released (release() gives its memory back for good; clear() empties "
            .. "one to use it again)"
    )
end

--- Those that touch no byte of a buffer, when asked for none, ask here.
local function check_live(view, name)
    if band(view.flags, LIVE) == 0 then is_released(name) end
end

--- What is no number stands for one if it is an int64_t or uint64_t; else for NaN, which is in no
--- range. So ranges are looked at before anything is compared with it: its `__eq` is not called.
local function whole(value)
    return (istype(int64, value) or istype(uint64, value)) and tonumber(value) or NAN
end

local function whole_u32(value)
    local number = whole(value)
    return number <= 4294967295 and number or NAN
end

local function out_of_range(object, offset, width, name, place)
    local view = view_t(object)
    if band(view.flags, LIVE) == 0 then is_released(name) end
    local number = type(offset) == "number" and offset or whole(offset)
    if floor(number) ~= number then bad(place or 2, name, "offset from 0", offset) end
    raise(
        format(
            "%s: offset %.16g, width %d is outside the buffer of %d bytes (offsets count from 0)",
            name,
            number,
            width,
            view.len
        )
    )
end

local function bad_value(value, place, name, low, high)
    bad(place, name, "whole number from " .. low .. " to " .. high, value)
end

local function bad_count(count, place, name, max)
    bad_value(count, place, name, "0", format("%d", max))
end

--- Makes the content writable, with room behind it for this many bytes.
local function reserve(object, extra, name)
    local fault = buffer_reserve(object, extra)
    if fault then raise(name .. ": " .. fault) end
end

-- 64-bit values: numbers must be whole, cdata in range.

local function to_i64(value, place, name)
    if type(value) == "number" then
        if value >= -2 ^ 63 and value < 2 ^ 63 and floor(value) == value then
            return cast(int64, value)
        end
    elseif istype(int64, value) then
        return value
    elseif istype(uint64, value) and value <= 0x7fffffffffffffffULL then
        return cast(int64, value)
    end
    bad_value(value, place, name, "-2^63", "2^63 - 1")
end

local function to_u64(value, place, name)
    if type(value) == "number" then
        if value >= 0 and value < 2 ^ 64 and floor(value) == value then
            return cast(uint64, value)
        end
    elseif istype(uint64, value) then
        return value
    elseif istype(int64, value) and value >= 0LL then
        return cast(uint64, value)
    end
    bad_value(value, place, name, "0", "2^64 - 1")
end

local env = {
    TOKEN = TOKEN,
    UNIQUE = UNIQUE,
    LIVE = LIVE,
    view_t = view_t,
    cast = cast,
    bad = bad,
    not_buffer = not_buffer,
    is_released = is_released,
    out_of_range = out_of_range,
    bad_value = bad_value,
    whole = whole,
    whole_u32 = whole_u32,
    reserve = reserve,
    to_i64 = to_i64,
    to_u64 = to_u64,
    uint64 = uint64,
    int64 = int64,
    tobit = tobit,
    band = band,
    rshift = rshift,
    getmetatable = getmetatable,
    tonumber = tonumber,
    type = type,
    floor = floor,
}

--- Adds a method, but not in the place of what a script has put there. Stand-ins, of which it may
--- have kept one, know what they stand for (core/listing.lua).
local function place(name, method)
    local stubs = native.buffer_stubs
    local stub, now = stubs and stubs[name], rawget(buffer, name)
    if stub then native.stub_originals[stub] = method end
    if now == nil or now == stub or getinfo(now, "S").what == "C" then
        rawset(buffer, name, method)
    end
end
env.place = place

--- Finds an accessor that is not there yet: one of numbers, if any. What is loaded puts another
--- function in the place of this one.
function env.find(_, name)
    if type(name) ~= "string" then return nil end
    native.load "buffer/number"(native, env)
    return env.find(nil, name)
end
setmetatable(buffer, { __index = env.find })

-- Bytes and pointers.

local function check_buffer(object, name)
    if getmetatable(object) ~= TOKEN or type(object) ~= "userdata" then not_buffer(object, name) end
end

--- Offset of the first such byte at or behind `from`; nil if there is none.
local function index_of(object, byte, from)
    check_buffer(object, "index_of")
    local view = view_t(object)
    if not from and from == nil then from = 0 end
    local at = type(from) == "number" and tobit(from) or whole(from)
    local wanted = type(byte) == "number" and tobit(byte) or whole(byte)
    if not (wanted >= 0 and wanted <= 255) or wanted ~= byte then
        bad_value(byte, 2, "index_of", "0", "255")
    end
    if not (at >= 0 and at <= view.len) or at ~= from then
        out_of_range(object, from, 0, "index_of", 3)
    end
    check_live(view, "index_of")
    local address, len = view.address, view.len
    local bytes = view.ptr + at
    if view.address ~= address or view.len ~= len then return index_of(object, byte, from) end
    local found = memchr(bytes, wanted, len - at)
    if found == nil then return nil end
    return tonumber(cast(bytes_t, found) - bytes) + at
end

--- Part of the content as a string; without a count all from the offset on.
local function text(object, offset, count)
    check_buffer(object, "text")
    local view = view_t(object)
    local at = type(offset) == "number" and tobit(offset) or whole(offset)
    if not (at >= 0 and at <= view.len) or at ~= offset then
        out_of_range(object, offset, 0, "text")
    end
    check_live(view, "text")
    local address, len = view.address, view.len
    local wanted = len - at
    if count or count == false then
        wanted = type(count) == "number" and tobit(count) or whole(count)
        if not (wanted >= 0 and wanted <= len - at) or wanted ~= count then
            bad_count(count, 3, "text", len - at)
        end
    end
    local bytes = view.ptr + at
    if view.address ~= address or view.len ~= len then return text(object, offset, count) end
    return text_of(bytes, wanted)
end

--- Appends a string; like append, but compiled.
local function put(object, given, more)
    check_buffer(object, "put")
    if more or more == false then bad(3, "put", nil, more) end
    if type(given) ~= "string" then bad(2, "put", "string", given) end
    local view, count = view_t(object), #given
    check_live(view, "put")
    if view.room < count then reserve(object, count, "put") end
    local address, len = view.address, view.len
    local bytes = view.ptr + len
    if view.address ~= address or view.len ~= len or view.room < count then
        return put(object, given)
    end
    copy(bytes, given, count)
    view.len = len + count
    view.room = view.room - count
    return object
end

--- Address of the first byte, not to be written through, and the length. Good until the buffer is
--- changed or collected.
local function ptr(object)
    check_buffer(object, "ptr")
    local view = view_t(object)
    check_live(view, "ptr")
    local address, len = view.address, view.len
    local bytes = cast(bytes_t, view.ptr)
    if view.address ~= address or view.len ~= len then return ptr(object) end
    return bytes, len
end

--- Makes room for at least `count` bytes; their address, and how many there are.
local function make_room(object, count)
    check_buffer(object, "reserve")
    local view = view_t(object)
    local wanted = type(count) == "number" and tobit(count) or whole(count)
    if not (wanted >= 0 and wanted <= SIZE_MAX) or wanted ~= count then
        bad_count(count, 2, "reserve", SIZE_MAX)
    end
    if view.room < wanted or band(view.flags, UNIQUE) == 0 then
        reserve(object, wanted, "reserve")
    end
    local address, len, room = view.address, view.len, view.room
    local bytes = view.ptr + len
    if
        view.address ~= address
        or view.len ~= len
        or view.room ~= room
        or room < wanted
        or band(view.flags, UNIQUE) == 0
    then
        return make_room(object, count)
    end
    return bytes, room
end

place("index_of", index_of)
place("text", text)
place("put", put)
place("ptr", ptr)
place("reserve", make_room)

--- Adds bytes written behind the content to it.
local function commit(object, count)
    check_buffer(object, "commit")
    local view = view_t(object)
    check_live(view, "commit")
    local added = type(count) == "number" and tobit(count) or whole(count)
    if not (added >= 0 and added <= view.room) or added ~= count then
        bad_count(count, 2, "commit", view.room)
    end
    view.len = view.len + added
    view.room = view.room - added
    return object
end

--- Drops bytes from the front; like remove, but compiled, and raises if there are too few.
local function skip(object, count)
    check_buffer(object, "skip")
    local view = view_t(object)
    local dropped = type(count) == "number" and tobit(count) or whole(count)
    check_live(view, "skip")
    local address, len = view.address, view.len
    if not (dropped >= 0 and dropped <= len) or dropped ~= count then
        bad_count(count, 2, "skip", len)
    end
    local bytes = view.ptr + dropped
    if view.address ~= address or view.len ~= len then return skip(object, count) end
    view.ptr = bytes
    view.len = len - dropped
    return object
end
place("skip", skip)

--- Forgets the content; like clear, but compiled.
local function reset(object)
    check_buffer(object, "reset")
    local view = view_t(object)
    check_live(view, "reset")
    if band(view.flags, UNIQUE) ~= 0 then view.room = view.room + view.len end
    view.len = 0
    return object
end

-- Loops over a buffer ask for these: from here on the compiled way.
local function length(object)
    check_buffer(object, "length")
    return view_t(object).len
end

local function unfill(object)
    check_buffer(object, "unfill")
    return view_t(object).room
end

place("commit", commit)
place("reset", reset)
place("length", length)
place("unfill", unfill)

env.check_buffer = check_buffer
native.load "buffer/varint"(native, env)
return env
