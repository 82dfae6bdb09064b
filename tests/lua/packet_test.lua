-- Module packet: layouts of every field type, round trips, errors.

local packet = require "packet"

local checks = require "support.checks"
local same, raises, test = checks.same, checks.raises, checks.test

local MOVE = packet.layout {
    endian = "B",
    { "id", "u16" },
    { "flags", "u8" },
    { "pos", "f32", 3 },
    { "tag", "char", 4 },
    { "name", "s2" },
    { "steps", "varint" },
    { "delta", "zigzag" },
    { "tail", "i32" },
}

local function move()
    return {
        id = 513,
        flags = 7,
        pos = { 1, -2, 0.5 },
        tag = "ab",
        name = "walker",
        steps = 300,
        delta = -3,
        tail = -1,
    }
end

test("encode gives the bytes that pack gives", function()
    local b = MOVE:encode(move())
    local wanted = buffer.pack(">HBfffc4s2", 513, 7, 1, -2, 0.5, "ab", "walker")
    wanted:put_varint(300):put_zigzag(-3):put_i32be(-1)
    same(b:tostring(), wanted:tostring())
    same(MOVE.size, nil)
    same(MOVE.offsets.tag, 15)
    same(MOVE.offsets.name, nil)
end)

test("decode gives back what was encoded", function()
    for _, prefix in ipairs { "", "x", ("y"):rep(1000) } do
        local b = buffer.new(prefix)
        same(MOVE:encode(move(), b), b)
        local t, after = MOVE:decode(b, #prefix)
        same(after, #b)
        for name, value in pairs(move()) do
            if type(value) == "table" then
                for i = 1, 3 do
                    same(t[name][i], value[i], name)
                end
            else
                same(t[name], value, name)
            end
        end
    end
end)

test("every prefix of a packet is refused", function()
    local text = MOVE:encode(move()):tostring()
    for n = 0, #text - 1 do
        local ok, message = pcall(MOVE.decode, MOVE, buffer.new(text:sub(1, n)))
        local is_told = message:find "outside the buffer" or message:find "past the end"
        assert(not ok and is_told, message)
    end
    raises(
        "decode: 19 bytes at offset 1 are outside the buffer of 18 bytes",
        MOVE.decode,
        MOVE,
        buffer.new(text:sub(1, 18)),
        1
    )
end)

test("every type, both orders", function()
    for kind, pair in pairs(checks.LIMITS) do
        for _, endian in ipairs { "L", "B" } do
            for _, count in ipairs { 1, 2, 8, 9, 100 } do
                local layout = packet.layout {
                    endian = endian,
                    { "pad", "u8" },
                    { "v", kind, count },
                    { "one", kind },
                }
                local v = {}
                for i = 1, count do
                    v[i] = pair[i % 2 + 1]
                end
                local b = layout:encode { pad = 1, v = v, one = pair[2] }
                same(#b, layout.size)
                local t, after = layout:decode(b)
                same(after, layout.size)
                same(t.one, pair[2])
                for i = 1, count do
                    same(t.v[i], v[i], kind)
                    same(layout.get.v(b, 0, i), v[i], kind)
                end
                same(layout.get.one(b), pair[2])
                layout.set.v(b, 0, count, pair[1])
                same(layout.get.v(b, 0, count), pair[1])
                layout.set.one(b, 0, pair[1])
                same(layout.get.one(b, 0), pair[1])
                raises("index from 1 to %d+ expected, got number 0", layout.get.v, b, 0, 0)
                raises("#3 to 'get.v' %(index from 1 to", layout.get.v, b, 0, count + 1)
                raises("outside the buffer", layout.get.one, b, 1)
                raises("outside the buffer", layout.set.one, b, -1, pair[1])
            end
        end
    end
end)

test("errors name field, value and limit", function()
    local function with(name, value)
        local t = move()
        t[name] = value
        return t
    end
    local b = buffer.new "before"
    local function refused(pattern, name, value)
        raises(pattern, MOVE.encode, MOVE, with(name, value), b)
        same(b:tostring(), "before")
    end
    local function told(name, expected, got)
        return "bad field '" .. name .. "' of 'encode' %(" .. expected .. " expected, got " .. got
    end
    refused(told("id", "whole number from 0 to 65535", "number 65536"), "id", 65536)
    refused(told("id", "whole number from 0 to 65535", "nil"), "id", nil)
    refused(told("id", "whole number from 0 to 65535", "table"), "id", {})
    refused(told("flags", "whole number from 0 to 255", "number 1.5"), "flags", 1.5)
    refused(told("flags", "whole number from 0 to 255", "number %-?nan"), "flags", 0 / 0)
    refused(told("pos", "table of 3 elements", "number 1"), "pos", 1)
    refused(told("pos", "table of 3 elements", "one of 2"), "pos", { 1, 2 })
    refused(told("pos", "number", 'string "x"'), "pos", { 1, 2, "x" })
    refused(told("tag", "string of at most 4 bytes", 'string "abcde"'), "tag", "abcde")
    refused(told("name", "string of at most 65535 bytes", "number 1"), "name", 1)
    local long = ("x"):rep(65536)
    refused('at most 65535 bytes expected, got string "x+%.%.%." of 65536 bytes', "name", long)
    refused(told("steps", "whole number from 0 to 2^64 %- 1", "number %-1"), "steps", -1)
    refused(told("delta", "whole number from %-2^63 to 2^63 %- 1", "number 0.5"), "delta", 0.5)
    raises("table of fields, as in layout:encode", MOVE.encode, MOVE, 1)
    raises("buffer expected, got string", MOVE.encode, MOVE, move(), "x")
    raises("buffer expected, got nil", MOVE.decode, MOVE)
    raises("packet_test.lua:%d+:", function() MOVE:encode(with("id", -1)) end)
    raises(
        "released",
        MOVE.decode,
        MOVE,
        (function()
            b:release()
            return b
        end)()
    )
end)

test("declarations are checked", function()
    raises("#1 to 'layout' %(table of fields expected, got nil", packet.layout)
    raises("table of 1 to 150 fields expected, got one of 0", packet.layout, {})
    local function refused(why, layout) raises("'layout' %(" .. why, packet.layout, layout) end
    refused('"L" or "B" expected, got string "X"', { endian = "X", { "a", "u8" } })
    refused('name of a type %(u8 .* zigzag%) expected, got string "u7"', { { "a", "u7" } })
    refused("number of bytes for char expected, got nil", { { "a", "char" } })
    refused("none for type s1 expected, got number 2", { { "a", "s1", 2 } })
    refused("whole number from 1 to 65535 expected, got number 0", { { "a", "u8", 0 } })
    refused("name of a type .* expected, got nil", { { "a" } })
    refused("table of name and type expected, got number 1", { 1 })
    raises("declared twice", packet.layout, { { "a", "u8" }, { "a", "u8" } })
    local odd = packet.layout { { 'a"%1\n\\', "u8" }, { "end", "s1" } }
    local t = odd:decode(odd:encode { ['a"%1\n\\'] = 3, ["end"] = "x" })
    same(t['a"%1\n\\'], 3)
    same(t["end"], "x")
end)

test("strings at their limits", function()
    for kind, max in pairs { s1 = 255, s2 = 65535 } do
        local layout = packet.layout { { "s", kind } }
        for _, n in ipairs { 0, 1, max - 1, max } do
            local text = ("z"):rep(n)
            same(layout:decode(layout:encode { s = text }).s, text)
        end
        raises("string of at most " .. max, layout.encode, layout, { s = ("z"):rep(max + 1) })
    end
    local char = packet.layout { { "c", "char", 3 } }
    for _, text in ipairs { "", "a", "a\0b", "abc" } do
        same(char:decode(char:encode { c = text }).c, text)
    end
    same(char.get.c(buffer.new "ab\0"), "ab")
end)

test("shared buffers are copied before a set", function()
    local layout = packet.layout { { "a", "u32" } }
    local b = buffer.new(("\0"):rep(1000))
    local c = buffer.new(b)
    layout.set.a(b, 996, 5)
    same(layout.get.a(b, 996), 5)
    same(layout.get.a(c, 996), 0)
end)
