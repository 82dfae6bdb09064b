-- The accessors of buffers that compile: typed reads and writes, varints, raw pointers. Not for
-- scripts, which see them as methods. Offsets are zero-based.
--
-- Every accessor is generated from one of three templates, so that it holds all of its checks
-- itself. In compiled code the type check and the loads of ptr and len leave the loop; what remains
-- is the comparison with the length. `tobit(x) ~= x` is true for whatever is no int32: NaN,
-- fractions, huge numbers, strings; for integers in compiled code it costs nothing.

local native = ...

local ffi = (native.ffi or require)("ffi")
local bit = require "bit"

native.load "internal/cdef"(native, "buffer.h")
ffi.cdef "void *memchr(const void *bytes, int byte, size_t len);"

local buffer, TOKEN = native.buffer_methods()
local C = ffi.C
local cast, copy, istype, text_of = ffi.cast, ffi.copy, ffi.istype, ffi.string
local tobit, band, bor, rshift, bxor = bit.tobit, bit.band, bit.bor, bit.rshift, bit.bxor
local getmetatable, floor, type, error = getmetatable, math.floor, type, error

-- Called, not cast to: it takes no string then, whatever the metatable of strings claims.
local view_t = ffi.typeof "nl_buffer *"
local bytes_t = ffi.typeof "const uint8_t *"
local int64, uint64 = ffi.typeof "int64_t", ffi.typeof "uint64_t"
local scratch = ffi.new "union { int32_t i32; float f32; uint64_t u64; double f64; }"

local UNIQUE = C.NL_BUFFER_UNIQUE
local LIVE = C.NL_BUFFER_LIVE
local SIZE_MAX = 0x7fffffff
local EXACT_MAX = 2 ^ 53
local NAN = 0 / 0

-- Failure. All of these raise in the function that called the accessor.

local function show(value)
    return type(value) == "string" and string.format("%q", value) or tostring(value)
end

local function not_buffer(value)
    error("buffer expected, got " .. type(value), 3)
end

local function out_of_range(object, offset, width, name)
    local view = view_t(object)
    if band(view.flags, LIVE) == 0 then error(name .. ": buffer is released", 3) end
    error(
        string.format(
            "%s: offset %s, width %d is outside the buffer of %d bytes (offsets count from 0)",
            name, show(offset), width, view.len
        ),
        3
    )
end

--- Those that touch no byte of a buffer, when asked for none, ask here.
local function check_live(view, name)
    if band(view.flags, LIVE) == 0 then error(name .. ": buffer is released", 3) end
end

local function bad_value(value, name, low, high)
    local text = "%s: %s is not a whole number from %s to %s"
    error(string.format(text, name, show(value), low, high), 3)
end

local function bad_number(value, name)
    error(string.format("%s: number expected, got %s", name, show(value)), 3)
end

local function bad_count(count, max, name)
    error(string.format("%s: %s is not a whole number from 0 to %d", name, show(count), max), 3)
end

--- Makes the content writable, with room behind it for so many bytes.
local function reserve(object, extra)
    local fault = native.buffer_reserve(object, extra)
    if fault then error(fault, 3) end
end

-- 64-bit values: numbers must be whole, cdata in range.

local function to_i64(value, name)
    if type(value) == "number" then
        if value >= -2 ^ 63 and value < 2 ^ 63 and floor(value) == value then
            return cast(int64, value)
        end
    elseif istype(int64, value) then
        return value
    elseif istype(uint64, value) and value <= 0x7fffffffffffffffULL then
        return cast(int64, value)
    end
    error(
        string.format("%s: %s is not a whole number from -2^63 to 2^63 - 1", name, show(value)),
        3
    )
end

local function to_u64(value, name)
    if type(value) == "number" then
        if value >= 0 and value < 2 ^ 64 and floor(value) == value then
            return cast(uint64, value)
        end
    elseif istype(uint64, value) then
        return value
    elseif istype(int64, value) and value >= 0LL then
        return cast(uint64, value)
    end
    error(string.format("%s: %s is not a whole number from 0 to 2^64 - 1", name, show(value)), 3)
end

-- Fixed widths. `load` and `store` are for the byte order of this machine, `load_swapped` and
-- `store_swapped` for the other. `check` turns `given` into `stored`.

local SMALL = [[
    local stored = tobit(given or NAN)
    if stored ~= given or stored < $low or stored > $high then
        bad_value(given, "$name", "$low", "$high")
    end]]
-- Integers in compiled code are int32: those need no more than the sign looked at.
local U32 = [[
    local stored = tobit(given or NAN)
    if stored ~= given or stored < 0 then
        if type(given) ~= "number" or not (given >= 0 and given <= 4294967295)
            or floor(given) ~= given
        then
            bad_value(given, "$name", "0", "4294967295")
        end
        stored = given
    end]]
local FLOAT = [[
    local stored = given
    if type(given) ~= "number" then bad_number(given, "$name") end]]

local function plain(ctype)
    return "cast(" .. ctype .. "_p, bytes)[0]"
end

local FIXED = {
    u8 = { width = 1, low = "0", high = "255", load = "bytes[0]", store = "bytes[0] = stored" },
    i8 = { width = 1, low = "-128", high = "127" },
    u16 = {
        width = 2, low = "0", high = "65535",
        load_swapped = "rshift(bswap(cast(u16_p, bytes)[0]), 16)",
        store_swapped = "cast(u16_p, bytes)[0] = rshift(bswap(stored), 16)",
    },
    i16 = {
        width = 2, low = "-32768", high = "32767",
        load_swapped = "arshift(bswap(cast(u16_p, bytes)[0]), 16)",
        store_swapped = "cast(u16_p, bytes)[0] = rshift(bswap(stored), 16)",
    },
    u32 = {
        width = 4, check = U32,
        load_swapped = "tonumber(cast(uint32, bswap(cast(i32_p, bytes)[0])))",
        store_swapped = "cast(i32_p, bytes)[0] = bswap(stored)",
    },
    i32 = {
        width = 4, low = "-2147483648", high = "2147483647",
        load_swapped = "bswap(cast(i32_p, bytes)[0])",
        store_swapped = "cast(i32_p, bytes)[0] = bswap(stored)",
    },
    u64 = {
        width = 8, check = 'local stored = to_u64(given, "$name")',
        load_swapped = "bswap(cast(u64_p, bytes)[0])",
        store_swapped = "cast(u64_p, bytes)[0] = bswap(stored)",
    },
    i64 = {
        width = 8, check = 'local stored = to_i64(given, "$name")',
        load_swapped = "bswap(cast(i64_p, bytes)[0])",
        store_swapped = "cast(i64_p, bytes)[0] = bswap(stored)",
    },
    f32 = {
        width = 4, check = FLOAT,
        prepare_swapped = "scratch.i32 = bswap(cast(i32_p, bytes)[0])",
        load_swapped = "scratch.f32",
        store_swapped = "scratch.f32 = stored; cast(i32_p, bytes)[0] = bswap(scratch.i32)",
    },
    f64 = {
        width = 8, check = FLOAT,
        prepare_swapped = "scratch.u64 = bswap(cast(u64_p, bytes)[0])",
        load_swapped = "scratch.f64",
        store_swapped = "scratch.f64 = stored; cast(u64_p, bytes)[0] = bswap(scratch.u64)",
    },
}

local PREAMBLE = [[
local e = ...
local TOKEN, NAN, UNIQUE, scratch, view_t = e.TOKEN, e.NAN, e.UNIQUE, e.scratch, e.view_t
local not_buffer, out_of_range, bad_value = e.not_buffer, e.out_of_range, e.bad_value
local bad_number, reserve, to_i64, to_u64 = e.bad_number, e.reserve, e.to_i64, e.to_u64
local u16_p, i16_p, u32_p, i32_p = e.u16_p, e.i16_p, e.u32_p, e.i32_p
local u64_p, i64_p, f32_p, f64_p, i8_p = e.u64_p, e.i64_p, e.f32_p, e.f64_p, e.i8_p
local uint32, cast = e.uint32, e.cast
local tobit, band, bswap, rshift, arshift = bit.tobit, bit.band, bit.bswap, bit.rshift, bit.arshift
local getmetatable, tonumber, type, floor = getmetatable, tonumber, type, math.floor
local M = e.buffer
]]

local GET = [[
function M.$name(buffer, offset)
    if getmetatable(buffer) ~= TOKEN then not_buffer(buffer) end
    local view, at = view_t(buffer), tobit(offset or NAN)
    if at ~= offset or at < 0 or at > view.len - $width then
        out_of_range(buffer, offset, $width, "$name")
    end
    local bytes = view.ptr + at
    $prepare
    return $load
end
]]

local SET = [[
function M.set_$name(buffer, offset, given)
    if getmetatable(buffer) ~= TOKEN then not_buffer(buffer) end
    local view, at = view_t(buffer), tobit(offset or NAN)
    if at ~= offset or at < 0 or at > view.len - $width then
        out_of_range(buffer, offset, $width, "set_$name")
    end
    $check
    if band(view.flags, UNIQUE) == 0 then reserve(buffer, 0) end
    local bytes = view.ptr + at
    $store
end
]]

local PUT = [[
function M.put_$name(buffer, given)
    if getmetatable(buffer) ~= TOKEN then not_buffer(buffer) end
    local view = view_t(buffer)
    $check
    if view.room < $width then reserve(buffer, $width) end
    local bytes, room = view.ptr + view.len, view.room
    $store
    view.len = view.len + $width
    view.room = room - $width
    return buffer
end
]]

local env = {
    TOKEN = TOKEN, NAN = NAN, UNIQUE = UNIQUE, scratch = scratch, view_t = view_t, cast = cast,
    not_buffer = not_buffer, out_of_range = out_of_range, bad_value = bad_value,
    bad_number = bad_number, reserve = reserve, to_i64 = to_i64, to_u64 = to_u64, buffer = buffer,
    uint32 = ffi.typeof "uint32_t", show = show,
}
for kind, ctype in pairs {
    i8 = "int8_t", u16 = "uint16_t", i16 = "int16_t", u32 = "uint32_t", i32 = "int32_t",
    u64 = "uint64_t", i64 = "int64_t", f32 = "float", f64 = "double",
} do
    env[kind .. "_p"] = ffi.typeof(ctype .. " *")
end

--- What the generated code for a kind and byte order ("le", "be", or "" for one byte) consists of.
local function parts(kind, order)
    local fixed = FIXED[kind]
    local swapped = order ~= "" and (order == "le") ~= ffi.abi "le"
    return {
        width = fixed.width, low = fixed.low, high = fixed.high, check = fixed.check or SMALL,
        prepare = swapped and fixed.prepare_swapped or "",
        load = swapped and fixed.load_swapped or fixed.load or plain(kind),
        store = swapped and fixed.store_swapped or fixed.store or (plain(kind) .. " = stored"),
    }
end

local function expand(template, values)
    -- Twice: the parts contain placeholders themselves.
    return (template:gsub("%$(%w+)", values):gsub("%$(%w+)", values))
end

local TEMPLATES = { [""] = GET, set_ = SET, put_ = PUT }

--- Makes the accessor of this name and adds it to the methods; nil if it is not a name of one.
local function generate(name)
    local prefix, kind, order = name:match "^(%l-_?)([uif]%d+)(%l*)$"
    local template, fixed = TEMPLATES[prefix], FIXED[kind]
    if not template or not fixed then return nil end
    if fixed.width == 1 and order ~= "" or fixed.width > 1 and order ~= "le" and order ~= "be" then
        return nil
    end
    local values = parts(kind, order)
    values.name = kind .. order
    values.check = values.check:gsub("%$name", name)
    assert(loadstring(PREAMBLE .. expand(template, values), "=[node-lua] buffer"))(env)
    return rawget(buffer, name)
end

-- Most scripts use few of the 54.
setmetatable(buffer, {
    __index = function(_, name) return type(name) == "string" and generate(name) or nil end,
})

function buffer.byte(object, offset) return buffer.u8(object, offset) end

-- Variable length: LEB128, least significant group of 7 bits first.

--- A varint of any length up to 10 bytes.
local function long_varint(object, offset, at, name)
    local view = view_t(object)
    local value, shift = 0ULL, 0
    for i = at, view.len - 1 do
        local byte = view.ptr[i]
        if shift == 63 and byte > 1 then
            error(string.format("%s: value at offset %d exceeds 64 bits", name, offset), 3)
        end
        value = bor(value, bit.lshift(cast(uint64, band(byte, 127)), shift))
        if byte < 128 then
            return value <= 0x20000000000000ULL and tonumber(value) or value, i + 1
        end
        shift = shift + 7
    end
    error(
        string.format(
            "%s: value at offset %d runs past the end of %d bytes", name, offset, view.len
        ),
        3
    )
end

local function get_varint(object, offset, name)
    local view, at = view_t(object), tobit(offset or NAN)
    if at ~= offset or at < 0 or at >= view.len then
        -- One level deeper than the generated accessors.
        return nil
    end
    -- Written out: a loop would be a trace of its own, entered and left at every call.
    local bytes, left = view.ptr + at, view.len - at
    local value = bytes[0]
    if value < 128 then return value, at + 1 end
    -- A byte that is not there counts as one that goes on: the long way then finds it missing.
    local byte = left > 1 and bytes[1] or 128
    value = value - 128 + byte * 128
    if byte < 128 then return value, at + 2 end
    byte = left > 2 and bytes[2] or 128
    value = value - 16384 + byte * 16384
    if byte < 128 then return value, at + 3 end
    byte = left > 3 and bytes[3] or 128
    value = value - 2097152 + byte * 2097152
    if byte < 128 then return value, at + 4 end
    return long_varint(object, offset, at, name)
end

--- The unsigned varint at an offset, and the offset behind it.
function buffer.varint(object, offset)
    if getmetatable(object) ~= TOKEN then not_buffer(object) end
    local value, after = get_varint(object, offset, "varint")
    if not value then out_of_range(object, offset, 1, "varint") end
    return value, after
end

--- The signed (zigzag) varint at an offset, and the offset behind it.
function buffer.zigzag(object, offset)
    if getmetatable(object) ~= TOKEN then not_buffer(object) end
    local value, after = get_varint(object, offset, "zigzag")
    if not value then out_of_range(object, offset, 1, "zigzag") end
    if type(value) == "number" then
        local half = floor(value / 2)
        if value == half * 2 then return half, after end
        return -half - 1, after
    end
    local half = cast(int64, bxor(rshift(value, 1), -band(value, 1ULL)))
    return half, after
end

--- Writes a number from 0 to 2^53, or any uint64_t, where there is room for 10 bytes.
local function write_varint(bytes, value)
    local count = 0
    if type(value) == "number" then
        while value > 0x7fffffff do
            local rest = floor(value / 128)
            bytes[count] = value - rest * 128 + 128
            value, count = rest, count + 1
        end
        local small = tobit(value)
        if small < 128 then
            bytes[count] = small
            return count + 1
        end
        bytes[count] = bor(small, 128)
        if small < 16384 then
            bytes[count + 1] = rshift(small, 7)
            return count + 2
        end
        while small >= 128 do
            bytes[count] = bor(small, 128)
            small, count = rshift(small, 7), count + 1
        end
        bytes[count] = small
        return count + 1
    end
    while value >= 128ULL do
        bytes[count] = bor(tonumber(band(value, 127ULL)), 128)
        value, count = rshift(value, 7), count + 1
    end
    bytes[count] = tonumber(value)
    return count + 1
end

local function append_varint(object, value)
    local view = view_t(object)
    if view.room < 10 then
        local fault = native.buffer_reserve(object, 10)
        if fault then error(fault, 4) end
    end
    local count = write_varint(view.ptr + view.len, value)
    view.len = view.len + count
    view.room = view.room - count
    return object
end

--- Turns a signed value into the unsigned one that stands for it.
local function to_zigzag(value)
    if type(value) == "number" and value >= -2 ^ 52 and value <= 2 ^ 52
        and floor(value) == value
    then
        return value >= 0 and value * 2 or -value * 2 - 1
    end
    local wide = to_i64(value, "zigzag")
    return cast(uint64, bxor(bit.lshift(wide, 1), bit.arshift(wide, 63)))
end

--- Appends an unsigned varint.
function buffer.put_varint(object, value)
    if getmetatable(object) ~= TOKEN then not_buffer(object) end
    if type(value) ~= "number" or not (value >= 0 and value <= EXACT_MAX)
        or floor(value) ~= value
    then
        value = to_u64(value, "put_varint")
    end
    return append_varint(object, value)
end

--- Appends a signed varint.
function buffer.put_zigzag(object, value)
    if getmetatable(object) ~= TOKEN then not_buffer(object) end
    return append_varint(object, to_zigzag(value))
end

-- Bytes and pointers.

--- Offset of the first such byte at or behind `from`; nil if there is none.
function buffer.index_of(object, byte, from)
    if getmetatable(object) ~= TOKEN then not_buffer(object) end
    local view = view_t(object)
    if from == nil then from = 0 end
    local at, wanted = tobit(from), tobit(byte or NAN)
    if wanted ~= byte or wanted < 0 or wanted > 255 then bad_value(byte, "index_of", "0", "255") end
    if at ~= from or at < 0 or at > view.len then out_of_range(object, from, 0, "index_of") end
    check_live(view, "index_of")
    local found = C.memchr(view.ptr + at, wanted, view.len - at)
    if found == nil then return nil end
    return tonumber(cast(bytes_t, found) - view.ptr)
end

--- Part of the content as a string; without a count all from the offset on.
function buffer.text(object, offset, count)
    if getmetatable(object) ~= TOKEN then not_buffer(object) end
    local view, at = view_t(object), tobit(offset or NAN)
    if at ~= offset or at < 0 or at > view.len then out_of_range(object, offset, 0, "text") end
    check_live(view, "text")
    local left = view.len - at
    if count == nil then return text_of(view.ptr + at, left) end
    local wanted = tobit(count)
    if wanted ~= count or wanted < 0 or wanted > left then bad_count(count, left, "text") end
    return text_of(view.ptr + at, wanted)
end

--- Appends a string; like append, but compiled.
function buffer.put(object, text)
    if getmetatable(object) ~= TOKEN then not_buffer(object) end
    if type(text) ~= "string" then error("put: string expected, got " .. type(text), 2) end
    local view, len = view_t(object), #text
    check_live(view, "put")
    if view.room < len then reserve(object, len) end
    copy(view.ptr + view.len, text, len)
    view.len = view.len + len
    view.room = view.room - len
    return object
end

--- Address of the first byte, not to be written through, and the length. Good until the buffer is
--- changed or collected.
function buffer.ptr(object)
    if getmetatable(object) ~= TOKEN then not_buffer(object) end
    local view = view_t(object)
    check_live(view, "ptr")
    return cast(bytes_t, view.ptr), view.len
end

--- Makes room for at least `count` bytes; their address, and how many there are.
function buffer.reserve(object, count)
    if getmetatable(object) ~= TOKEN then not_buffer(object) end
    local view = view_t(object)
    local wanted = tobit(count or NAN)
    if wanted ~= count or wanted < 0 then bad_count(count, SIZE_MAX, "reserve") end
    if view.room < wanted or band(view.flags, UNIQUE) == 0 then reserve(object, wanted) end
    return view.ptr + view.len, view.room
end

--- Adds bytes written behind the content to it.
function buffer.commit(object, count)
    if getmetatable(object) ~= TOKEN then not_buffer(object) end
    local view = view_t(object)
    check_live(view, "commit")
    local added = tobit(count or NAN)
    if added ~= count or added < 0 or added > view.room then
        bad_count(count, view.room, "commit")
    end
    view.len = view.len + added
    view.room = view.room - added
    return object
end

--- Drops bytes from the front; like remove, but compiled, and raises if there are too few.
function buffer.skip(object, count)
    if getmetatable(object) ~= TOKEN then not_buffer(object) end
    local view = view_t(object)
    check_live(view, "skip")
    local dropped = tobit(count or NAN)
    if dropped ~= count or dropped < 0 or dropped > view.len then
        bad_count(count, view.len, "skip")
    end
    view.ptr = view.ptr + dropped
    view.len = view.len - dropped
    return object
end

--- Forgets the content; like clear, but compiled.
function buffer.reset(object)
    if getmetatable(object) ~= TOKEN then not_buffer(object) end
    local view = view_t(object)
    check_live(view, "reset")
    if band(view.flags, UNIQUE) ~= 0 then view.room = view.room + view.len end
    view.len = 0
    return object
end

-- Loops over a buffer ask for these: from here on the compiled way.
function buffer.length(object)
    if getmetatable(object) ~= TOKEN then not_buffer(object) end
    return view_t(object).len
end

function buffer.unfill(object)
    if getmetatable(object) ~= TOKEN then not_buffer(object) end
    return view_t(object).room
end

env.FIXED, env.parts, env.expand = FIXED, parts, expand
env.get_varint, env.write_varint, env.to_zigzag = get_varint, write_varint, to_zigzag
return env
