-- Module buffer as scripts see it: contract, pack formats, limits. See also buffer_access_test.lua.

local ffi = require "ffi"

local checks = require "support.checks"
local same, raises, hex, test = checks.same, checks.raises, checks.hex, checks.test

test("forms of new", function()
    same(buffer.new():length(), 0)
    same(buffer.new():unfill(), 32)
    same(buffer.new(nil):unfill(), 32)
    same(buffer.new(5):unfill(), 5)
    same(buffer.new(16):unfill(), 16)
    same(buffer.new(0):unfill(), 0)
    same(buffer.new(10, "abc"):unfill(), 7)
    same(buffer.new(500):unfill(), 500)
    same(buffer.new(5000):unfill(), 5000)
    same(buffer.new("abc"):unfill(), 32)
    same(buffer.new(("x"):rep(5000)):unfill(), 32)
    same(buffer.new(2, "longer"):tostring(), "longer")
    same(buffer.new(100, "short"):unfill(), 95)
    same(buffer.new(100, 12):tostring(), "12")
    for _, bad in ipairs { -1, 0.5, 1 / 0, -1 / 0, 0 / 0, 2 ^ 31, 1e300 } do
        raises("whole number from 0 to 2147483647 expected, got", buffer.new, bad)
    end
    raises("string, number or buffer expected", buffer.new, {})
    raises("string, number or buffer expected", buffer.new, newproxy())
    same(type(getmetatable(buffer.new())), "table")
end)

test("contents around the inline limit", function()
    for _, n in ipairs { 0, 1, 31, 32, 33, 479, 480, 511, 512, 513, 543, 544, 545, 1000, 70000 } do
        local text = ("abcdefg"):rep(n):sub(1, n)
        local b = buffer.new(text)
        same(#b, n)
        same(tostring(b), text)
        b:append("!")
        same(b:tostring(), text .. "!")
        local c = buffer.new(b)
        c:append(b)
        same(c:length(), 2 * n + 2)
        same(b:split():tostring(), text .. "!")
        same(b:length(), 0)
        b:append("again")
        same(b:tostring(), "again")
    end
end)

test("split and remove", function()
    local text = ("0123456789"):rep(1000)
    local b = buffer.new(text)
    local taken = {}
    for _, n in ipairs { 0, 1, 100, 512, 513, 2000 } do
        taken[#taken + 1] = b:split(n):tostring()
    end
    same(table.concat(taken) .. b:tostring(), text)
    same(b:split(1e9):length(), 10000 - 3126)
    same(b:split(1 / 0):length(), 0)
    same(buffer.new():split(3):valid(), true)
    raises("whole number", b.split, b, -1)
    raises("whole number", b.split, b, 0 / 0)
    raises("whole number", b.split, b, 1.5)
    b = buffer.new("abcdef")
    same(b:remove(2), true)
    same(b:tostring(), "cdef")
    same(b:remove(100), true)
    same(b:length(), 0)
    b:release()
    same(b:remove(1), true, "a released buffer is empty")
end)

test("holders are independent", function()
    local a = buffer.new(("a"):rep(2000))
    local b = buffer.new(a)
    local c = a:slice(1000, 600)
    b:set_u8(0, 98)
    c:put_u8(99)
    a:append("!")
    same(a:tostring(), ("a"):rep(2000) .. "!")
    same(b:tostring(), "b" .. ("a"):rep(1999))
    same(c:tostring(), ("a"):rep(600) .. "c")
    a:release()
    same(b:length(), 2000)
    raises("released", a.slice, a, 0)
    raises("whole number from 0 to 2000", b.slice, b, 2001)
    raises("whole number from 0 to 1", b.slice, b, 1999, 2)
    same(b:slice(2000):length(), 0)
end)

test("released", function()
    local b = buffer.new(("x"):rep(1000))
    b:release()
    same(b:append("x"), false)
    same(b:append(b), false)
    same(b:clear(), true)
    same(b:valid(), false)
    same(b:length(), 0)
    same(#b, 0)
    same(b:unfill(), 0)
    same(b:tostring(), "")
    same(select("#", b:find()), 0)
    same(buffer.new(b):valid(), true)
    same(buffer.new("x"):append(b), true)
    raises("released", b.pack, b, "b", 1)
    raises("released", b.unpack, b, "b")
    raises("u8: buffer is released", b.u8, b, 0)
    raises("buffer is released", b.put_u8, b, 1)
    raises("buffer is released", b.reserve, b, 0)
    raises("released", b.ptr, b)
    -- Nothing asked for, and still nothing to be had.
    raises("text: buffer is released", b.text, b, 0, 0)
    raises("put: buffer is released", b.put, b, "")
    raises("index_of: buffer is released", b.index_of, b, 0)
    raises("skip: buffer is released", b.skip, b, 0)
    raises("commit: buffer is released", b.commit, b, 0)
    raises("reset: buffer is released", b.reset, b)
end)

test("concatenation and comparison", function()
    local b = buffer.new "abc"
    same(b .. "d", "abcd")
    same("d" .. b, "dabc")
    same(b .. b, "abcabc")
    same(b .. 1 .. b, "abc1abc")
    same(2 .. b, "2abc")
    same(b .. "\0" .. buffer.new(("x"):rep(5000)), "abc\0" .. ("x"):rep(5000))
    same(b, buffer.new "abc")
    same(b ~= buffer.new "abd", true)
    same(b ~= buffer.new "abcd", true)
    same(buffer.new() == buffer.new(), true)
    same(buffer.new(("x"):rep(5000)), buffer.new(5000, ("x"):rep(5000)))
    same(b == "abc", false, "strings are no buffers")
    same(rawequal(b, buffer.new "abc"), false)
    local set = { [b] = 1 }
    same(set[buffer.new "abc"], nil, "as a key each is its own")
    local gone = buffer.new "gone"
    gone:release()
    same(gone == buffer.new(), false)
    same(gone, gone)
    raises(
        "buffer_test.lua:%d+: attempt to concatenate: buffer is released %(release",
        function() return gone .. "x" end
    )
    raises("released", function() return "x" .. gone end)
    raises("attempt to concatenate a table value", function() return b .. {} end)
    raises("attempt to concatenate a nil value", function() return nil .. b end)
end)

test("find", function()
    local b = buffer.new("a\0b\0\0c")
    same(b:find("\0\0"), 4)
    same(b:find("c"), 6)
    same(b:find(""), 1)
    same(b:find(), 1)
    same(b:find("\0", 3), 4)
    same(b:find("", 7), 7)
    same(b:find("", 8), nil)
    same(select("#", b:find("x")), 0)
    same(buffer.new("a12"):find(12), 2)
    raises("string expected", b.find, b, {})
end)

test("pack formats", function()
    local function packed(wanted, ...) same(hex(buffer.pack(...)), wanted) end
    packed("0102030405060708", "<I8", 0x0807060504030201ULL)
    packed("feff", "<h", -2)
    packed("fffe", ">h", -2)
    packed("ff00", "bB", -1, 0)
    packed("010000", "<I3", 1)
    packed("fffffffffffffffffffffffffffffffe", ">i16", -2)
    packed("0000803f", "<f", 1)
    packed("3ff0000000000000", ">d", 1)
    packed("03616263", "s1", "abc")
    packed("0003616263", ">s2", "abc")
    packed("61620000", "c4", "ab")
    packed("616200", "z", "ab")
    packed("0100000002000000", "<!4 b i4", 1, 2)
    packed("01000200", "<!b Xh h", 1, 2)
    packed("0100", "b x", 1)
    packed("0700000000000000", "<j", 7LL)
    packed("3132", "c2", 12)
    local b = buffer.new("head")
    same(b:pack(">H", 258), b)
    same(b:tostring(), "head\1\2")
    same(buffer.packsize("!8 b d i4 c3"), 23)
    same(b:packsize("i7"), 7)
    raises('format without s and z expected, got string "s"', buffer.packsize, "s")
    raises("unknown option 'y' in format", buffer.pack, "y")
    raises("whole number from 0 to 255 expected, got number 300", buffer.pack, "B", 300)
    raises("whole number from 0 to 255 expected, got number %-1", buffer.pack, "B", -1)
    raises("whole number expected, got number 1.5", buffer.pack, "B", 1.5)
    raises("whole number expected, got number %-?nan", buffer.pack, "B", 0 / 0)
    raises("number, int64_t or uint64_t expected", buffer.pack, "B", {})
    raises("number, int64_t or uint64_t expected", buffer.pack, "B", ffi.new "int[1]")
    raises("number, int64_t or uint64_t expected", buffer.pack, "B")
    local long = ("x"):rep(256)
    raises('at most 255 bytes expected, got string "x+%.%.%." of 256', buffer.pack, "s1", long)
    raises('string without zero bytes expected, got string "a\\0"', buffer.pack, "z", "a\0")
    raises('string of at most 1 bytes expected, got string "ab"', buffer.pack, "c1", "ab")
    raises("whole number from %-128 to 127 expected, got number 128", b.pack, b, "bb", 1, 128)
    same(b:length(), 6, "nothing written after an error")
    same(buffer.packsize("c2147483647"), 2147483647)
    raises("exceeds the limit of 2147483647", buffer.packsize, "c2147483647c2147483647")
    -- Each byte of a format takes its time.
    same(buffer.packsize(("x"):rep(65536)), 65536)
    for _, f in ipairs { buffer.packsize, buffer.pack, b.pack, b.unpack } do
        local text = "format of at most 65536 bytes expected, got string"
        if f == b.unpack then
            raises(text, f, b, (" "):rep(65537))
        else
            raises(text, f, (" "):rep(65537))
        end
    end
end)

test("unpack", function()
    local function round(format, ...)
        local b = buffer.pack(format, ...)
        local results = { b:unpack(format) }
        for i = 1, select("#", ...) do
            same(results[i], (select(i, ...)), format)
        end
        same(results[select("#", ...) + 1], #b + 1)
    end
    for _, order in ipairs { "<", ">", "=" } do
        for _, n in ipairs { 1, 2, 3, 5, 7, 8, 16 } do
            local edge = n >= 7 and 2 ^ 53 or 2 ^ (8 * n - 1)
            round(order .. "i" .. n, -edge)
            round(order .. "i" .. n, edge - 1)
            round(order .. "I" .. n, n >= 7 and edge or 2 * edge - 1)
        end
        round(order .. "s4 z d f b", "text\0", "zero", 0.1, 0.5, -128)
        round(order .. "!8 b d c3 s2", 1, 2, "abc", ("y"):rep(3000))
    end
    round("I8", 0xffffffffffffffffULL)
    round("i8", -0x8000000000000000LL)
    same(type(buffer.pack("i8", 2 ^ 53):unpack "i8"), "number")
    local b = buffer.new "\1\2\3\4"
    same(b:unpack("b", 4), 4)
    same(b:unpack("b", -1), 4)
    same(select(2, b:unpack("b", 4)), 5)
    same(b:unpack("", 5), 5)
    raises("whole number from 0 to 5", b.unpack, b, "b", 6)
    raises("positions count from 1, got number 0", b.unpack, b, "b", 0)
    raises("item at position 4 does not fit a buffer of 4 bytes", b.unpack, b, "i3h")
    raises("does not fit", b.unpack, b, "z")
    raises("does not fit", buffer.new("\255abc").unpack, buffer.new "\255abc", "s1")
    raises("does not fit", b.unpack, buffer.new(("\255"):rep(8)), "s8")
    raises("16 bytes does not fit 64 bits", b.unpack, buffer.new(("\127"):rep(16)), "i16")
    raises("16 bytes does not fit 64 bits", b.unpack, buffer.new(("\255"):rep(16)), "I16")
end)

test("unknown names", function()
    same(buffer.new().no_such_method, nil)
    same(buffer.no_such_function, nil)
end)

test("finalisers cannot pull bytes from under a call", function()
    local victim
    local function trap()
        local proxy = newproxy(true)
        getmetatable(proxy).__gc = function()
            if victim then victim:release() end
        end
    end
    for i = 1, 300 do
        victim = buffer.new(("v"):rep(1000 + i))
        for _ = 1, 20 do
            trap()
        end
        local text = victim:tostring()
        assert(text == "" or text == ("v"):rep(1000 + i))
        local other = buffer.new(victim)
        other:append(victim)
        victim:append(("w"):rep(5000))
        victim:split(600)
    end
    victim = nil
    same(true, true)
end)

test("random operations agree with strings", function()
    local seed = os.time()
    math.randomseed(seed)
    local random = math.random
    local function text(max)
        return (string.char(random(0, 255), random(0, 255), 0, 65)):rep(random(0, max))
    end
    local buffers, model = {}, {}
    for i = 1, 4 do
        buffers[i], model[i] = buffer.new(), ""
    end
    local operations = {
        function(i, s)
            buffers[i]:append(s)
            model[i] = model[i] .. s
        end,
        function(i, s)
            buffers[i]:put(s)
            model[i] = model[i] .. s
        end,
        function(i, _, j)
            if #model[i] + #model[j] < 1e5 then
                buffers[i]:append(buffers[j])
                model[i] = model[i] .. model[j]
            end
        end,
        function(i, _, j)
            local n = random(0, #model[i])
            local head, rest = model[i]:sub(1, n), model[i]:sub(n + 1)
            local split = buffers[i]:split(n)
            model[i] = rest
            if i ~= j then
                buffers[j], model[j] = split, head
            end
        end,
        function(i)
            local n = random(0, #model[i])
            buffers[i]:remove(n)
            model[i] = model[i]:sub(n + 1)
        end,
        function(i)
            local n = random(0, #model[i])
            buffers[i]:skip(n)
            model[i] = model[i]:sub(n + 1)
        end,
        function(i)
            buffers[i]:reset()
            model[i] = ""
        end,
        function(i)
            buffers[i]:clear()
            model[i] = ""
        end,
        function(i, _, j)
            buffers[j], model[j] = buffer.new(buffers[i]), model[i]
        end,
        function(i, _, j)
            local n = random(0, #model[i])
            buffers[j], model[j] = buffers[i]:slice(n), model[i]:sub(n + 1)
        end,
        function(i)
            if #model[i] > 0 then
                local at = random(0, #model[i] - 1)
                buffers[i]:set_u8(at, 66)
                model[i] = model[i]:sub(1, at) .. "B" .. model[i]:sub(at + 2)
            end
        end,
        function(i, s)
            local ptr, room = buffers[i]:reserve(#s)
            assert(room >= #s)
            ffi.copy(ptr, s, #s)
            buffers[i]:commit(#s)
            model[i] = model[i] .. s
        end,
        function(i)
            buffers[i]:release()
            buffers[i], model[i] = buffer.new(random(0, 2000)), ""
        end,
        function(i)
            buffers[i]:pack("s4", "abc")
            model[i] = model[i] .. "\3\0\0\0abc"
        end,
        function(i)
            buffers[i]:put_u32be(0x41424344)
            model[i] = model[i] .. "ABCD"
        end,
    }
    for step = 1, 30000 do
        local which, i = random(1, #operations), random(1, 4)
        operations[which](i, text(which <= 2 and 200 or 20), random(1, 4))
        if buffers[i]:tostring() ~= model[i] or #buffers[i] ~= #model[i] then
            error(string.format("seed %d, step %d: operation %d goes wrong", seed, step, which))
        end
    end
    for i = 1, 4 do
        same(buffers[i]:tostring(), model[i], "seed " .. seed)
    end
end)
