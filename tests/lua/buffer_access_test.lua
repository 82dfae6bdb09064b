-- The accessors of buffers as scripts see them: numbers of fixed and of variable length, pointers,
-- search, text; limits.

local ffi = require "ffi"

local checks = require "support.checks"
local same, raises, hex, test = checks.same, checks.raises, checks.hex, checks.test

local KINDS = checks.LIMITS
local FORMATS = {
    u8 = "B",
    i8 = "b",
    u16 = "H",
    i16 = "h",
    u32 = "I4",
    i32 = "i4",
    f32 = "f",
    f64 = "d",
    u64 = "I8",
    i64 = "i8",
}

test("accessors at their limits", function()
    for kind, limits in pairs(KINDS) do
        local width = buffer.packsize(FORMATS[kind])
        for _, order in ipairs(width == 1 and { "" } or { "le", "be" }) do
            local name = kind .. order
            local format = (order == "be" and ">" or "<") .. FORMATS[kind]
            for _, value in ipairs(limits) do
                local b = buffer.new()
                same(b["put_" .. name](b, value), b)
                same(b:tostring(), buffer.pack(format, value):tostring(), name)
                b:append("\0")
                b["set_" .. name](b, 1, value)
                same(b[name](b, 1), value, name)
                same(b:length(), width + 1)
                local why = "%s: offset 2, width %d is outside the buffer of %d bytes"
                raises(why:format(name, width, width + 1), b[name], b, 2)
                raises("offset 2, width", b["set_" .. name], b, 2, value)
                for _, bad in ipairs { -1, 1 / 0, -1 / 0, 2 ^ 32, 2 ^ 53 } do
                    raises(name .. ": offset", b[name], b, bad)
                end
                local text = "#2 to '" .. name .. "' %(offset from 0 expected, got "
                raises(text .. "number 0.5", b[name], b, 0.5)
                raises(text .. "number %-?nan", b[name], b, 0 / 0)
                raises(text .. 'string "0"', b[name], b, "0")
                raises(text .. "nil", b[name], b)
                raises(text .. "table", b[name], b, {})
            end
            local b = buffer.new(8)
            for _, bad in ipairs { 0 / 0, 0.5, 2 ^ 64, -2 ^ 64, "1" } do
                if not (kind:sub(1, 1) == "f" and type(bad) == "number") then
                    raises("#2 to 'put_" .. name, b["put_" .. name], b, bad)
                end
            end
            raises("put_" .. name, b["put_" .. name], b)
            if width < 8 and kind:sub(1, 1) ~= "f" then
                raises(
                    "whole number from " .. tostring(limits[1]):gsub("%-", "%%-"),
                    b["put_" .. name],
                    b,
                    limits[1] - 1
                )
                raises("whole number from", b["put_" .. name], b, limits[2] + 1)
            end
            same(b:length(), 0)
        end
    end
    raises("buffer expected, got table", buffer.u8, {}, 0)
    raises("buffer expected, got userdata", buffer.u8, io.stdout, 0)
    raises("buffer expected, got nil", buffer.put_u8)
    local b = buffer.new "abc"
    same(b:byte(1), 98)
    raises("buffer_access_test.lua:%d+: u8: offset 3", function()
        local x = b:u8(3)
        return x
    end)
    same(b:u8(1LL), 98, "int64 as offset")
    raises("whole number from 0 to 2^64 %- 1 expected, got cdata %-1LL", b.put_u64le, b, -1LL)
    raises("got cdata 9223372036854775808ULL", b.put_i64le, b, 0x8000000000000000ULL)
    b:put_u64le(5LL):put_i64be(-6):put_u64be(2 ^ 63)
    same(b:u64le(3), 5ULL)
    same(b:i64be(11), -6LL)
    same(b:u64be(19), 0x8000000000000000ULL)
end)

test("writes grow and unshare", function()
    local b = buffer.new()
    for i = 0, 9999 do
        b:put_u32be(i)
    end
    same(b:length(), 40000)
    for i = 0, 9999 do
        same(b:u32be(i * 4), i)
    end
    local copy = buffer.new(b)
    b:set_u32be(0, 77)
    same(copy:u32be(0), 0)
    same(b:u32be(0), 77)
end)

test("varints", function()
    local values = {
        0,
        1,
        127,
        128,
        16383,
        16384,
        2097151,
        2 ^ 31 - 1,
        2 ^ 31,
        2 ^ 32,
        2 ^ 49 - 1,
        2 ^ 49,
        2 ^ 53 - 1,
        2 ^ 53,
        2 ^ 53 + 2 + 0ULL,
        0x8000000000000000ULL,
        0xffffffffffffffffULL,
    }
    local b = buffer.new()
    for _, value in ipairs(values) do
        b:put_varint(value)
    end
    local at = 0
    for _, wanted in ipairs(values) do
        local value, behind = b:varint(at)
        at = behind
        same(value, wanted)
        same(type(value), type(wanted))
    end
    same(at, #b)
    local signed = {
        0,
        -1,
        1,
        -64,
        64,
        -65,
        2 ^ 31,
        -2 ^ 31,
        2 ^ 52,
        -2 ^ 52,
        2 ^ 52 + 1,
        0x7fffffffffffffffLL,
        -0x8000000000000000LL,
    }
    b = buffer.new()
    for _, v in ipairs(signed) do
        b:put_zigzag(v)
    end
    at = 0
    for _, wanted in ipairs(signed) do
        local value, behind = b:zigzag(at)
        at = behind
        same(value, wanted)
    end
    same(at, #b)
    same(hex(buffer.new():put_varint(300):put_zigzag(-2)), "ac0203")
    raises("runs past the end", b.varint, buffer.new "\128\128", 0)
    raises("exceeds 64 bits", b.varint, buffer.new(("\255"):rep(9) .. "\2"), 0)
    raises("exceeds 64 bits", b.varint, buffer.new(("\255"):rep(11)), 0)
    same(buffer.new(("\255"):rep(9) .. "\1"):varint(0), 0xffffffffffffffffULL)
    raises("varint: offset 0, width 1", b.varint, buffer.new(), 0)
    raises("#2 to 'zigzag' %(offset from 0 expected, got nil", b.zigzag, b)
    for _, bad in ipairs { -1, 0.5, 0 / 0, 2 ^ 64, "1" } do
        raises("put_varint", b.put_varint, b, bad)
    end
    for _, bad in ipairs { 0.5, 0 / 0, 2 ^ 64, "1" } do
        raises("zigzag", b.put_zigzag, b, bad)
    end
end)

test("pointers, search, text", function()
    local b = buffer.new "hello world"
    local ptr, len = b:ptr()
    same(ffi.string(ptr, len), "hello world")
    same(tostring(ffi.typeof(ptr)), "ctype<const unsigned char *>")
    same(b:index_of(("o"):byte()), 4)
    same(b:index_of(("o"):byte(), 5), 7)
    same(b:index_of(("z"):byte()), nil)
    same(b:index_of(0, 11), nil)
    raises("offset 12", b.index_of, b, 0, 12)
    raises("whole number from 0 to 255 expected, got number 256", b.index_of, b, 256)
    same(b:text(6), "world")
    same(b:text(0, 5), "hello")
    same(b:text(11), "")
    raises("'text' %(whole number from 0 to 5 expected, got number 6", b.text, b, 6, 6)
    same(b:skip(6):tostring(), "world")
    raises("'skip' %(whole number from 0 to 5 expected, got number 6", b.skip, b, 6)
    local room
    ptr, room = b:reserve(1000)
    assert(room >= 1000)
    ffi.copy(ptr, "xyz", 3)
    same(b:commit(3):tostring(), "worldxyz")
    raises("'commit' %(whole number from 0 to %d+ exp", b.commit, b, b:unfill() + 1)
    raises("'reserve' %(whole .* got number %-1", b.reserve, b, -1)
    raises("exceeds the limit", b.reserve, b, 2 ^ 31 - 1)
    same(b:reset():length(), 0)
    same(b:put("abc"):put(""):tostring(), "abc")
    raises("#2 to 'put' %(string expected, got number 1", b.put, b, 1)
    same(b:unfill() > 900, true)
    local shared = buffer.new(("s"):rep(1000))
    local other = buffer.new(shared)
    same(shared:skip(10):reset():put("new"):tostring(), "new")
    same(other:length(), 1000)
    -- skipped room is found again
    b = buffer.new(64)
    for i = 1, 1000 do
        b:put_u64le(i)
        same(b:u64le(0), i + 0ULL)
        b:skip(8)
    end
end)
