-- Formats and values made by the input: what is packed comes back, and hostile bytes do no harm.

local ffi = require "ffi"

local input, at

local function take()
    at = at + 1
    return input:byte(at) or 0
end

local function bits()
    local value = 0ULL
    for _ = 1, 8 do
        value = value * 256 + take()
    end
    return value
end

local function same(a, b)
    if type(a) == "cdata" or type(b) == "cdata" then return a == b end
    a = type(a) == "userdata" and tostring(a) or a
    b = type(b) == "userdata" and tostring(b) or b
    return a == b or a ~= a and b ~= b
end

local VALUES = {
    0,
    1,
    -1,
    127,
    128,
    255,
    256,
    65535,
    65536,
    2 ^ 31,
    2 ^ 32,
    2 ^ 53,
    2 ^ 63,
    2 ^ 64,
    -2 ^ 31,
    -2 ^ 63,
    0.5,
    1 / 0,
    0 / 0,
    -0.0,
    1e300,
    "",
    "text",
    "12",
    "with\0zero",
    ("long"):rep(100),
    true,
    false,
    {},
    print,
}

local function value()
    local choice = take()
    if choice < 200 then
        return VALUES[choice % #VALUES + 1]
    elseif choice < 220 then
        return bits()
    elseif choice < 240 then
        return ffi.cast("int64_t", bits())
    elseif choice < 250 then
        return take()
    end
    return buffer.new "a buffer"
end

--- Most characters of the alphabet are those that mean something.
local ALPHABET = "bBhHiIlLjJTfdnsczxX<>=! 0123456789bBiIsc"

local function format()
    local chars = {}
    local is_raw = take() % 4 == 0
    for i = 1, take() % 24 do
        local byte = take()
        if is_raw then
            chars[i] = string.char(byte)
        else
            local place = byte % #ALPHABET + 1
            chars[i] = ALPHABET:sub(place, place)
        end
    end
    return table.concat(chars)
end

--- What `unpack` gave, packed again and unpacked again, is the same.
local function check_again(layout, values, count)
    local ok, again = pcall(buffer.pack, layout, unpack(values, 1, count))
    -- A string may have been read from a `c` or `z`, and a number from an `f`: all fit again.
    assert(ok, again)
    local second = { again:unpack(layout) }
    for i = 1, count do
        assert(same(values[i], second[i]), "value " .. i .. " of " .. layout)
    end
    assert(second[count + 1] == #again + 1, "position behind")
    return again
end

local function make_hostile()
    local layout = format()
    local position = take() % 16 - 4
    local bytes = input:sub(at + 1)
    local content = buffer.new(bytes)
    local results = { pcall(buffer.unpack, content, layout, position) }
    if not results[1] then
        assert(type(results[2]) == "string", "the error is no string")
    else
        local count = #results
        local behind = results[count]
        assert(type(behind) == "number" and behind >= 1 and behind <= #bytes + 1, "position")
        check_again(layout, { unpack(results, 2, count - 1) }, count - 2)
    end
    assert(content:tostring() == bytes, "the content has changed")
end

local function round_trip()
    local layout, values = format(), {}
    local count = take() % 20
    for i = 1, count do
        values[i] = value()
    end
    local prefix = ("p"):rep(take() % 40)
    local target = buffer.new(prefix)
    local ok, why = pcall(buffer.pack, target, layout, unpack(values, 1, count))
    if not ok then
        assert(type(why) == "string", "the error is no string")
        assert(target:tostring() == prefix, "something was appended")
        return
    end
    assert(why == target and target:text(0, #prefix) == prefix)
    local packed = target:slice(#prefix)
    local results = { pcall(buffer.unpack, packed, layout) }
    if not results[1] then
        -- Numbers up to 2^64 fit integers of more than eight bytes, and no type that comes back.
        assert(results[2]:find "does not fit 64 bits", results[2])
        return
    end
    table.remove(results, 1)
    local got = #results - 1
    assert(results[got + 1] == #packed + 1, "position behind")
    local again = check_again(layout, results, got)
    assert(again:tostring() == packed:tostring(), "packed differently")
    local sized, bytes = pcall(buffer.packsize, layout)
    assert(not sized or bytes == #packed, "packsize")
    assert(sized or layout:find "[sz]", "no packsize")
end

function fuzz(bytes)
    input, at = bytes, 0
    if take() % 2 == 0 then
        make_hostile()
    else
        round_trip()
    end
end
