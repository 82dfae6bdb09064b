-- Module msgpack: bytes of the specification, what is read, and what is refused where.

if not msgpack then return end -- a build without it

local tap = require("support.tap")
local is, ok, raises, test = tap.is, tap.ok, tap.raises, tap.test
local encode, decode = msgpack.encode, msgpack.decode

local function hex(bytes)
    return (bytes:gsub(".", function(byte) return ("%02x"):format(byte:byte()) end))
end
local function unhex(text)
    return (text:gsub("%x%x", function(byte) return string.char(tonumber(byte, 16)) end))
end

-- Values, and the shortest form that the specification has for them.
test("forms", function()
    for _, case in ipairs({
        { nil, "c0" },
        { false, "c2" },
        { true, "c3" },
        { 0, "00" },
        { 127, "7f" },
        { 128, "cc80" },
        { 255, "ccff" },
        { 256, "cd0100" },
        { 65535, "cdffff" },
        { 65536, "ce00010000" },
        { 2 ^ 32 - 1, "ceffffffff" },
        { 2 ^ 32, "cf0000000100000000" },
        { 2 ^ 53, "cf0020000000000000" },
        { -1, "ff" },
        { -32, "e0" },
        { -33, "d0df" },
        { -128, "d080" },
        { -129, "d1ff7f" },
        { -32768, "d18000" },
        { -32769, "d2ffff7fff" },
        { -2 ^ 31, "d280000000" },
        { -2 ^ 31 - 1, "d3ffffffff7fffffff" },
        { 1.5, "cb3ff8000000000000" },
        { 1e300, "cb7e37e43c8800759c" },
        { math.huge, "cb7ff0000000000000" },
        { "", "a0" },
        { "a", "a161" },
        { ("x"):rep(31), "bf" .. ("78"):rep(31) },
        { ("x"):rep(32), "d920" .. ("78"):rep(32) },
        { ("x"):rep(255), "d9ff" .. ("78"):rep(255) },
        { ("x"):rep(256), "da0100" .. ("78"):rep(256) },
        { ("x"):rep(65536), "db00010000" .. ("78"):rep(65536) },
        { "\255", "c401ff" },
    }) do
        local value, form = case[1], case[2]
        is(hex(encode(value)), form, form:sub(1, 20))
        is(decode(unhex(form)), value == nil and msgpack.null or value, "read: " .. form:sub(1, 20))
    end
    is(hex(encode({})), "80", "an empty table")
    is(hex(encode(msgpack.array({}))), "90", "an empty array")
    is(hex(encode({ 1, 2 })), "920102", "a list")
    is(hex(encode({ a = 1 })), "81a16101", "a map")
    is(hex(encode(buffer.new("ab"))), "c4026162", "a buffer")
    is(hex(encode(buffer.new(("x"):rep(256)))), "c50100" .. ("78"):rep(256), "a larger one")
    is(hex(encode(-1LL)), "ff", "int64_t")
    is(hex(encode(18446744073709551615ULL)), "cfffffffffffffffff", "uint64_t")
    is(decode(unhex("cfffffffffffffffff")), 18446744073709551615ULL, "read exactly")
    is(decode(unhex("d38000000000000000")), -9223372036854775807LL - 1, "the lowest too")
    is(decode(unhex("cfffffffffffffffff"), { int64 = false }), 2 ^ 64, "or as the nearest number")
    is(decode(unhex("ca3fc00000")), 1.5, "a float of four bytes")
    ok(decode(encode(0 / 0)) ~= decode(encode(0 / 0)), "NaN")
    is(decode(unhex("dc0002c0c3"))[2], true, "array 16")
    is(decode(unhex("dd00000002c0c3"))[2], true, "array 32")
    is(decode(unhex("de0001a16101")).a, 1, "map 16")
    is(decode(unhex("df00000001a16101")).a, 1, "map 32")
    is(decode(unhex("8101a161"))[1], "a", "a number as a key")
    is(decode(unhex("81c3a161"))[true], "a", "a boolean")
    is(decode(unhex("81c401ffa161"))["\255"], "a", "bytes")
    is(decode(unhex("a1ff")), "\255", "text that is none, as it is")
end)

test("extensions", function()
    for _, size in ipairs({ 0, 1, 2, 3, 4, 8, 16, 17, 255, 256, 65536 }) do
        local ext = decode(encode(msgpack.ext(-5, ("x"):rep(size))))
        ok(ext.type == -5 and ext.data == ("x"):rep(size), size .. " bytes")
    end
    is(hex(encode(msgpack.ext(5, "a"))), "d40561", "of one byte")
    is(hex(encode({ msgpack.ext(-1, "\0\0\0\1") })), "91d6ff00000001", "a timestamp, in a list")
    local stamp = decode(unhex("d6ff00000001"))
    ok(stamp.type == -1 and stamp.data == "\0\0\0\1", "read")
    is(hex(encode(stamp)), "d6ff00000001", "and written again")
    raises(
        "a wrong type",
        "bad argument #1 to 'ext' (whole number from -128 to 127",
        msgpack.ext,
        128,
        ""
    )
    raises("no data", "bad argument #2 to 'ext' (string expected", msgpack.ext, 1, 5)
    local broken = msgpack.ext(1, "x")
    broken.data = nil
    raises("one without data", ".a is an extension without", encode, { a = broken })
end)

test("tables", function()
    local value = { 1, { "x", a = nil }, { a = { b = { true, false } } }, ("y"):rep(300), 1.25, -7 }
    local back = decode(encode(value))
    ok(
        back[2][1] == "x" and back[3].a.b[2] == false and back[4] == value[4] and back[6] == -7,
        "nested"
    )
    is(hex(encode({ [1000] = true })), "81cd03e8c3", "a far key makes a map")
    is(hex(encode({ [0] = 1 })), "810001", "zero as a key")
    is(hex(encode({ [1.5] = 1 })), "81cb3ff800000000000001", "a fraction")
    is(hex(encode({ [true] = 1 })), "81c301", "a boolean")
    is(hex(encode({ 1, nil, 3 })), "9301c003", "a hole")
    raises(
        "both sorts of keys",
        "value has both string and array keys; msgpack.object(t)",
        encode,
        { 1, a = 2 }
    )
    local both = decode(encode(msgpack.object({ 1, a = 2 })))
    ok(both[1] == 1 and both.a == 2, "unless marked")
    is(hex(encode({ b = 1, a = 2 }, { sort_keys = true })), "82a16102a16201", "sorted keys")
    is(hex(encode({ {} }, { empty = "array" })), "9190", "empty tables as arrays")
    for _, count in ipairs({
        0,
        15,
        16,
        127,
        128,
        129,
        255,
        256,
        257,
        1023,
        1024,
        1025,
        65535,
        65536,
    }) do
        local list, map = {}, {}
        for i = 1, count do
            list[i], map[i * 3] = "v" .. i, i
        end
        local lists, maps = decode(encode(list)), decode(encode(msgpack.object(map)))
        local good = #lists == count
        for i = 1, count do
            good = good and lists[i] == list[i] and maps[i * 3] == i
        end
        ok(good, count .. " entries")
    end
end)

test("options", function()
    local bytes = encode("a") .. encode({ 1 }) .. encode(2)
    local value, at = decode(bytes, { from = 1 })
    ok(value == "a" and at == 3, "one after the other")
    value, at = decode(bytes, { from = at })
    ok(value[1] == 1 and at == 5, "from where the last one ended")
    value, at = decode(bytes, { from = at })
    ok(value == 2 and at == #bytes + 1, "to the end")
    raises("past it", "unexpected end", decode, bytes, { from = at })
    raises("far past it", "position 20 is behind the end (5 bytes)", decode, bytes, { from = 20 })
    raises("not asked for", "3 bytes behind the value, from byte 3 on", decode, bytes)
    local binary = decode(encode({ buffer.new("ab") }), { binary = "buffer" })
    ok(binary[1]:valid() and binary[1]:tostring() == "ab", "buffers")
    is(decode(encode({ buffer.new("ab") }))[1], "ab", "or strings")
    -- Many wait on the stack before their table is made.
    for _, count in ipairs({ 1, 15, 16, 60, 100, 127, 128, 129, 255, 256, 257, 1000, 5000 }) do
        local list, map, lists = {}, {}, {}
        for i = 1, count do
            list[i] = buffer.new("b" .. i)
            map["k" .. i] = list[i]
            if i <= 90 then lists = { list[i], lists, list[i] } end
        end
        local function read(given) return decode(encode(given), { binary = "buffer" }) end
        list, map, lists = read(list), read(map), read(lists)
        local wrong = 0
        for i = 1, count do
            local text = "b" .. i
            if list[i]:tostring() ~= text or map["k" .. i]:tostring() ~= text then
                wrong = wrong + 1
            end
        end
        for i = math.min(count, 90), 1, -1 do
            if lists[1]:tostring() ~= "b" .. i then wrong = wrong + 1 end
            lists = lists[2]
        end
        is(wrong, 0, count .. " buffers")
    end
    is(decode(unhex("91c0"), { null = false })[1], false, "null")
    is(next(decode(unhex("81a161c0"), { drop_nulls = true })), nil, "or nothing")
    is(decode(buffer.new(encode(5))), 5, "from a buffer")
end)

test("refused", function()
    raises("a function", "encode: .a[1] is a function", encode, { a = { print } })
    local cycle = {}
    cycle.x = cycle
    raises("a cycle", ".x is a table that contains it (a cycle)", encode, cycle)
    raises("nothing", "in the value at byte 1", decode, "")
    raises("half a number", "unexpected end of data in the value at byte 1", decode, unhex("cd01"))
    raises("half a string", "unexpected end", decode, unhex("a361"))
    raises("half a list", "unexpected end", decode, unhex("9301"))
    raises("a long list that is not there", "unexpected end", decode, unhex("ddffffffff"))
    raises("a long map", "unexpected end", decode, unhex("dfffffffff"))
    raises("a long string", "unexpected end", decode, unhex("dbffffffff61"))
    raises("a long extension", "unexpected end", decode, unhex("c9ffffffff0561"))
    raises("what is reserved", "is no value", decode, unhex("c1"))
    raises("a list as a key", "key", decode, unhex("819001"))
    raises("nil as a key", "key", decode, unhex("81c001"))
    raises("NaN as a key", "key is not a number", decode, unhex("81cb7ff800000000000001"))
    raises(
        "deep lists",
        "nested deeper than 1000 levels (max_depth)",
        decode,
        ("\x91"):rep(1001) .. "\1"
    )
    raises("deep maps", "nested deeper than 1000 levels", decode, ("\x81\1"):rep(1001) .. "\1")
    is(
        type(decode(("\x91"):rep(2000) .. "\1", { max_depth = 2000 })),
        "table",
        "as deep as allowed"
    )
    raises("large ones", "6 bytes, 5 at most (max_bytes)", decode, "\165abcde", { max_bytes = 5 })
    raises("written", "more than 5 bytes (max_bytes)", encode, "abcde", { max_bytes = 5 })
    raises("no option", [[named string "x"; there are empty]], encode, 1, { x = 1 })
end)

-- Maps of many keys of all kinds, some of them twice, against what plain assignments make.
test("large maps", function()
    local function key(i)
        local kind = i % 11
        if kind == 0 then return "k" .. i end
        if kind == 1 then return i * 1.5 end
        if kind == 2 then return -i end
        if kind == 3 then return i * 7919 * 4096 end
        if kind == 4 then return i % 23 == 0 end
        if kind == 5 then return (i - 60) * 0.25 end -- some of these are those of others
        return i
    end
    for _, count in ipairs({ 100, 127, 128, 129, 130, 300, 3000 }) do
        local expected, pairs_, values = {}, {}, 0
        for i = 1, count do
            local value = i % 7 == 0 and {} or i % 13 == 0 and "x" .. i or i
            pairs_[i] = encode(key(i)) .. encode(value)
            expected[key(i)] = value
        end
        local bytes = "\xdf" .. buffer.pack(">I4", count):tostring() .. table.concat(pairs_)
        collectgarbage()
        local got = decode(bytes)
        collectgarbage()
        local same = true
        for k, value in pairs(got) do
            local is_same = type(value) == "table" and #value == 0 and type(expected[k]) == "table"
            same = same and (is_same or value == expected[k])
            values = values + 1
        end
        for k in pairs(expected) do
            values = values - 1
            same = same and got[k] ~= nil
        end
        ok(same and values == 0, count .. " pairs")
    end
    local listed = {}
    for i = 1, 1000 do
        listed[i] = encode(i) .. encode(-i)
    end
    local got = decode("\xdf\0\0\3\xe8" .. table.concat(listed))
    ok(#got == 1000 and got[1] == -1 and got[1000] == -1000, "a list that was written as a map")
    local inner = decode("\x92" .. ("\xdf\0\0\3\xe8" .. table.concat(listed)):rep(2))
    ok(#inner[1] == 1000 and inner[2][999] == -999, "two in a list")
    local nulls = { "\xdf\0\0\1\x90" }
    for i = 1, 400 do
        nulls[i + 1] = encode(i + 0.5) .. (i % 2 == 0 and "\xc0" or "\1")
    end
    got = decode(table.concat(nulls))
    ok(got[1.5] == 1 and got[399.5] == 1 and got[400.5] == msgpack.null, "with nulls")
end)

test("tables and strings that were read are like others", function()
    local object = decode(encode({ __index = { found = 7 } }))
    is(setmetatable({}, object).found, 7, "as a metatable")
    local wrong = 0
    for length = 0, 40 do
        local word = ("m%dz"):format(7919 + length):rep(9):sub(1, length)
        local list = decode(encode({ word, { [word] = word, [1.5] = word, [true] = word } }))
        local map = list[2]
        local good = rawequal(list[1], word) and map[word] == word and map[1.5] == word
        if not good or map[true] ~= word then wrong = wrong + 1 end
    end
    is(wrong, 0, "of every length")
end)

tap.done()
