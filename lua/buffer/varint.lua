-- Numbers of variable length in buffers: LEB128, the least significant group of 7 bits first.
-- Loaded with buffer/access.lua, which says how finalisers are reckoned with.

local native, env = ...

local raise = native.raise
local view_t, reserve, check_buffer = env.view_t, env.reserve, env.check_buffer
local out_of_range, whole, to_i64, to_u64 = env.out_of_range, env.whole, env.to_i64, env.to_u64
local uint64, int64, cast = env.uint64, env.int64, env.cast
local tobit, band, rshift = env.tobit, env.band, env.rshift
local bad, floor, tonumber = env.bad, env.floor, env.tonumber
local bor, bxor, lshift, arshift = bit.bor, bit.bxor, bit.lshift, bit.arshift
local format, type = string.format, env.type

local BYTES_MAX = 10
local EXACT_MAX = 2 ^ 53
-- What the first seven groups can hold: a value is a low and a high part, both exact as numbers.
local LOW_GROUPS = 7
local LOW_MAX = 2 ^ 49

local get_varint

--- A varint of any length up to 10 bytes.
local function long_varint(object, offset, at, name)
    local view = view_t(object)
    local address, len = view.address, view.len
    local bytes = view.ptr + at
    if view.address ~= address or view.len ~= len or at >= len then
        return get_varint(object, offset, name)
    end
    local low, high, scale, count = 0, 0, 1, 0
    while true do
        if at + count >= len then
            local text = "%s: value at offset %d runs past the end of %d bytes"
            raise(format(text, name, at, len))
        end
        local byte = bytes[count]
        if count == BYTES_MAX - 1 and byte > 1 then
            raise(format("%s: value at offset %d exceeds 64 bits", name, at))
        end
        local group = band(byte, 127) * scale
        if count < LOW_GROUPS then
            low = low + group
        else
            high = high + group
        end
        count, scale = count + 1, scale * 128
        if count == LOW_GROUPS then scale = 1 end
        if byte < 128 then break end
    end
    local value = high * LOW_MAX + low
    -- Exact, if it is not larger.
    if high < 16 or high == 16 and low == 0 then return value, at + count end
    return cast(uint64, high) * 0x2000000000000ULL + cast(uint64, low), at + count
end

--- The value at an offset, and the offset behind it.
function get_varint(object, offset, name)
    local view, at = view_t(object), type(offset) == "number" and tobit(offset) or whole(offset)
    if not (at >= 0 and at < view.len) or at ~= offset then
        out_of_range(object, offset, 1, name)
    end
    local address, len = view.address, view.len
    local bytes = view.ptr + at
    if view.address ~= address or view.len ~= len then return get_varint(object, offset, name) end
    -- Written out: a loop would be a trace of its own, entered and left at every call.
    local left = len - at
    local value = bytes[0]
    if value < 128 then return value, at + 1 end
    -- A missing byte counts as one that others follow: the slow path then finds it missing.
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

--- The number that an unsigned one stands for.
local function from_zigzag(value)
    if type(value) == "number" then
        local half = floor(value / 2)
        if value == half * 2 then return half end
        return -half - 1
    end
    return cast(int64, bxor(rshift(value, 1), -band(value, 1ULL)))
end

local function get_zigzag(object, offset, name)
    local value, after = get_varint(object, offset, name)
    return from_zigzag(value), after
end

--- The unsigned varint at an offset, and the offset behind it.
local function varint(object, offset)
    check_buffer(object, "varint")
    return get_varint(object, offset, "varint")
end

--- The signed (zigzag) varint at an offset, and the offset behind it.
local function zigzag(object, offset)
    check_buffer(object, "zigzag")
    return get_zigzag(object, offset, "zigzag")
end

--- A number from 0 to 2^53, or any uint64_t, as the two parts that `write_varint` writes. After
--- this nothing need be allocated.
local function halves(value)
    if type(value) == "number" then return value, 0 end
    return tonumber(band(value, 0x1ffffffffffffULL)), tonumber(rshift(value, 49))
end

--- Writes groups of 7 bits where there is room for 10 bytes; returns how many.
local function write_varint(bytes, value, high)
    local count = 0
    if high ~= 0 then
        for _ = 1, LOW_GROUPS do
            local rest = floor(value / 128)
            bytes[count] = value - rest * 128 + 128
            value, count = rest, count + 1
        end
        value = high
    end
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

local function append_varint(object, value, name)
    local view = view_t(object)
    local low, high = value, 0
    if type(value) ~= "number" then
        low, high = halves(value)
    end
    if view.room < BYTES_MAX then reserve(object, BYTES_MAX, name) end
    local address, len = view.address, view.len
    local bytes = view.ptr + len
    if view.address ~= address or view.len ~= len or view.room < BYTES_MAX then
        return append_varint(object, value, name)
    end
    local count = write_varint(bytes, low, high)
    view.len = len + count
    view.room = view.room - count
    return object
end

--- Turns a value to be written into a number from 0 to 2^53, or a uint64_t.
local function to_varint(value, place, name)
    if type(value) == "number" and value >= 0 and value <= EXACT_MAX and floor(value) == value then
        return value
    end
    return to_u64(value, place, name)
end

--- Turns a signed value into the unsigned one that stands for it.
local function to_zigzag(value, place, name)
    if
        type(value) == "number"
        and value >= -2 ^ 52
        and value <= 2 ^ 52
        and floor(value) == value
    then
        return value >= 0 and value * 2 or -value * 2 - 1
    end
    local wide = to_i64(value, place, name)
    return cast(uint64, bxor(lshift(wide, 1), arshift(wide, 63)))
end

--- Appends an unsigned varint.
local function put_varint(object, value, more)
    check_buffer(object, "put_varint")
    if more or more == false then bad(3, "put_varint", nil, more) end
    return append_varint(object, to_varint(value, 2, "put_varint"), "put_varint")
end

--- Appends a signed varint.
local function put_zigzag(object, value, more)
    check_buffer(object, "put_zigzag")
    if more or more == false then bad(3, "put_zigzag", nil, more) end
    return append_varint(object, to_zigzag(value, 2, "put_zigzag"), "put_zigzag")
end

env.get_varint, env.get_zigzag, env.halves = get_varint, get_zigzag, halves
env.write_varint, env.to_varint, env.to_zigzag = write_varint, to_varint, to_zigzag

local place = env.place
place("varint", varint)
place("zigzag", zigzag)
place("put_varint", put_varint)
place("put_zigzag", put_zigzag)
