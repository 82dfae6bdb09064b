-- Module json, and cjson under its names: what is written, what is read, and what is refused where.

if not json then return end -- a build without it

local same = require("support.same")
local tap = require("support.tap")
local is, ok, raises, test = tap.is, tap.ok, tap.raises, tap.test
local encode, decode = json.encode, json.decode

local function reads(text, value, name) ok(same(decode(text), value), name or text) end

-- Raises what is said of a line of this file.
local function refuses(name, part, f, ...) raises(name, part, f, ...) end

test("written", function()
    is(encode({}), "{}", "an empty table")
    is(encode(json.array({})), "[]", "an empty array")
    is(encode(json.array()), "[]", "likewise")
    is(encode(json.object({})), "{}", "an empty object")
    is(encode({ 1, 2, 3 }), "[1,2,3]", "a list")
    is(encode({ a = 1 }), '{"a":1}', "an object")
    is(encode({ { {} } }), "[[{}]]", "nested")
    is(encode(nil), "null", "nil")
    is(encode(json.null), "null", "null")
    is(encode({ 1, nil, 3 }), "[1,null,3]", "a hole")
    is(encode(true), "true", "a boolean")
    is(encode("x"), '"x"', "a string")
    is(encode(buffer.new("x\n")), '"x\\n"', "a buffer")
    is(
        encode({ b = buffer.new(("y"):rep(5000)) }),
        '{"b":"' .. ("y"):rep(5000) .. '"}',
        "a large one"
    )
    is(
        encode(json.object({ "a", "b" }), { sort_keys = true }),
        '{"1":"a","2":"b"}',
        "a list as object"
    )
    is(
        encode({ c = 1, a = 2, b = { z = 1, y = 2 } }, { sort_keys = true }),
        '{"a":2,"b":{"y":2,"z":1},"c":1}',
        "sorted keys"
    )
    is(encode({}, { empty = "array" }), "[]", "empty tables as arrays, if asked for")
    is(encode({ [3] = "c", [1] = "a", [2] = "b" }), '["a","b","c"]', "whatever the order of making")
    local list = {}
    for i = 100, 1, -1 do
        list[i] = i
    end
    is(#decode(encode(list)), 100, "a list made backwards")
    is(
        encode(setmetatable({ 1 }, { __index = error, __len = error, __pairs = error })),
        "[1]",
        "metatables of scripts have no say"
    )
end)

test("numbers", function()
    is(encode(0), "0", "zero")
    is(encode(-0.0), "-0", "negative zero")
    is(encode(2 ^ 53), "9007199254740992", "2^53")
    is(encode(-2 ^ 53), "-9007199254740992", "-2^53")
    is(encode(1e15), "1000000000000000", "no exponent")
    is(encode(123456789012), "123456789012", "no point")
    is(encode(0.1), "0.1", "a fraction")
    is(type(decode(encode(2 ^ 53 + 2))), "number", "numbers come back as numbers")
    is(encode(1 / 3), "0.3333333333333333", "as many digits as it takes")
    is(encode(1e300), "1e+300", "a large one")
    is(encode(5e-324), "5e-324", "the smallest")
    is(encode(9223372036854775807LL), "9223372036854775807", "int64_t")
    is(encode(-9223372036854775807LL - 1), "-9223372036854775808", "the lowest")
    is(encode(18446744073709551615ULL), "18446744073709551615", "uint64_t")
    is(decode("9007199254740993"), 9007199254740993LL, "beyond 2^53 as int64_t")
    is(decode("18446744073709551615"), 18446744073709551615ULL, "or uint64_t")
    is(type(decode("9007199254740992")), "number", "up to there as a number")
    is(decode("9007199254740993", { int64 = false }), 2 ^ 53, "as the nearest number, if asked for")
    is(decode("18446744073709551616"), 2 ^ 64, "what does not fit is the nearest number")
    is(decode("1.7976931348623157e308"), 1.7976931348623157e308, "the largest")
    is(1 / decode("-0"), -math.huge, "negative zero is read")
    is(decode("0.1"), 0.1, "the nearest number")
    is(decode("1E+2"), 100, "an exponent")
    local x = 0.1
    for _ = 1, 1000 do
        x = (x * 1103515245 + 12345.678) % 1e6 / 3
        if decode(encode(x)) ~= x then return ok(false, "round trip", ("%.17g"):format(x)) end
    end
    ok(true, "a thousand fractions come back")
end)

test("text", function()
    is(
        encode('\0\1\8\9\10\12\13\31"\\/\127'),
        [["\u0000\u0001\b\t\n\f\r\u001f\"\\/]] .. '\127"',
        "control characters are escaped"
    )
    is(encode("häß€😀"), '"häß€😀"', "text stays as it is")
    is(decode([["\u0000\u00e9\u20AC\ud83d\uDE00\/\b"]]), "\0é€😀/\8", "escapes are read")
    is(decode('"häß€😀"'), "häß€😀", "UTF-8 too")
    is(encode({ ["ä\n"] = 1 }), '{"ä\\n":1}', "keys likewise")
    refuses(
        "bytes that are no text",
        ".a[2] is not valid UTF-8 (byte 3 is 0xff)",
        encode,
        { a = { "x", "xy\255" } }
    )
    refuses("in keys", "is not valid UTF-8", encode, { ["\200"] = 1 })
    is(encode({ "a\255b" }, { invalid_utf8 = "replace" }), '["a\239\191\189b"]', "or replaced")
    is(encode({ ["\255"] = 1 }, { invalid_utf8 = "replace" }), '{"\239\191\189":1}', "in keys too")
    refuses("when read", "invalid UTF-8 at line 2 column 3 (byte 5)", decode, '[\n "\255"]')
    refuses("half a pair", "at line 1 column", decode, [["\ud800"]])
end)

test("read", function()
    reads("[]", {})
    reads("{}", {})
    reads(" \t\r\n1 \n", 1, "blanks around")
    reads('{"a":{"b":[1,{"c":null}]}}', { a = { b = { 1, { c = json.null } } } })
    reads('{"a":1,"a":2}', { a = 2 }, "the last of two")
    reads('{"":1}', { [""] = 1 }, "an empty key")
    is(decode("[null]")[1], json.null, "null in a list")
    is(decode("null"), json.null, "null alone")
    is(decode("[null]", { null = 0 })[1], 0, "something else in the place of null")
    is(decode("[null]", { null = false })[1], false, "false too")
    ok(same(decode('{"a":null,"b":1}', { drop_nulls = true }), { b = 1 }), "or nothing")
    ok(same(decode("[1,null,3]", { drop_nulls = true }), { 1, nil, 3 }), "in lists likewise")
    -- The last one of a key counts, in tables of all sizes.
    for _, count in ipairs({ 0, 1, 100, 127, 128, 129, 1000 }) do
        local fields = {}
        for i = 1, count do
            fields[i] = ('"k%d":%d,'):format(i, i)
        end
        local others = table.concat(fields)
        for _, text in ipairs({
            '{"a":1,%s"a":null,"z":2}',
            '{%s"a":1,"a":null,"z":2}',
            '{"a":1,"a":null,%s"z":2}',
        }) do
            local read = decode(text:format(others), { drop_nulls = true })
            ok(read.a == nil and read.z == 2, "null after a value, " .. count)
            read = decode(
                text:gsub('"a":1', '"a":x'):gsub("null", "1"):gsub("x", "null"):format(others),
                {
                    drop_nulls = true,
                }
            )
            ok(read.a == 1 and read.z == 2, "a value after null, " .. count)
        end
    end
    is(decode(buffer.new('{"a":1}')).a, 1, "a buffer")
    is(#decode(buffer.new("[" .. ("1,"):rep(9999) .. "1]")), 10000, "a large one")
    local cut = buffer.new(("x"):rep(2000) .. '{"a":"' .. ("y"):rep(3000) .. '"}')
    cut:split(2000)
    is(#decode(cut).a, 3000, "the rest of one")
    is(encode(decode("[[],{}]")), "[[],{}]", "an empty array stays one")
    is(encode(decode("[[],{}]", { mark_arrays = false })), "[{},{}]", "or not")
    local marked = decode("[[1]]", { mark_arrays = true })
    marked[1][1] = nil
    is(encode(marked), "[[]]", "any array stays one, if asked for")
end)

-- Tables of all sizes around those at which they are made, or made larger.
test("sizes", function()
    for _, count in ipairs({ 0, 1, 2, 127, 128, 129, 255, 256, 257, 511, 512, 513, 1024, 5000 }) do
        local list, map, mixed = {}, {}, {}
        for i = 1, count do
            list[i], map["k" .. i] = i, i
            mixed[i] = i % 3 == 0 and "s" .. i or i % 3 == 1 and { i } or i % 2 == 0
        end
        ok(same(decode(encode(list)), list), count .. " numbers")
        ok(same(decode(encode(map)), map), count .. " keys")
        ok(same(decode(encode(mixed)), mixed), count .. " of all sorts")
    end
end)

test("refused", function()
    local line = "json_test.lua:" .. debug.getinfo(1, "l").currentline + 1
    refuses("blames the caller", line, function() return encode(print), nil end)
    refuses(
        "a function",
        "encode: .users[3].name is a function",
        encode,
        { users = { 1, 2, { name = print } } }
    )
    refuses("a coroutine", ".c is a coroutine", encode, { c = coroutine.create(print) })
    refuses("a userdata", ".f is a userdata", encode, { f = io.stdout })
    refuses("a cdata", ".c is a cdata", encode, { c = require("ffi").new("int[2]") })
    refuses("a released buffer", ".b is a released buffer", function()
        local b = buffer.new("x")
        b:release()
        encode({ b = b })
    end)
    refuses("alone", "string or buffer expected, got a released buffer", function()
        local b = buffer.new("1")
        b:release()
        decode(b)
    end)
    refuses("NaN", '.a["b c"] is not a number', encode, { a = { ["b c"] = 0 / 0 } })
    refuses("infinity", "value is infinite", encode, math.huge)
    refuses("minus infinity", "[1] is infinite", encode, { -math.huge })
    refuses("both sorts of keys", ".x has both string and array keys", encode, { x = { 1, a = 2 } })
    refuses("a far key", "an array of 1000 places with 2 values", encode, { 1, [1000] = 2 })
    refuses("a fraction as a key", "has the key 1.5", encode, { [1.5] = 1 })
    refuses("zero as a key", "has the key 0", encode, { [0] = 1 })
    refuses("a boolean as a key", "has a key that is neither", encode, { [true] = 1 })
    refuses("even marked", "has a key that is neither", encode, json.object({ [true] = 1 }))
    refuses("a marked array with names", "is marked as an array", encode, json.array({ a = 1 }))
    local cycle = { a = {} }
    cycle.a.b = { cycle }
    refuses("a cycle", ".a.b[1] is a table that contains it (a cycle)", encode, cycle)
    local twice = { 1 }
    is(encode({ twice, twice }), "[[1],[1]]", "twice is none")
    is(encode(json.object({ [1.5] = 1 })), '{"1.5":1}', "a marked object has numbers as text")
    for _, key in ipairs({ 1, 0, -7, 1.5, 2 ^ 53, 1e300 }) do
        local text = encode(json.object({ [key] = 1 })):match('"(.*)"')
        local both = json.object({ [key] = 1, [text] = 2, x = 3, [99] = 4 })
        local why = (".t has the keys %s and %q, which are one as text"):format(text, text)
        refuses("the same key twice", why, encode, { t = both })
        refuses("in order, too", why, encode, { t = both }, { sort_keys = true })
    end
    local other = json.object({ [1] = 1, ["01"] = 2, ["1.0"] = 3, ["1e0"] = 4, ["+1"] = 5 })
    local written = '{"1":1,"+1":5,"01":2,"1.0":3,"1e0":4}'
    is(encode(other, { sort_keys = true }), written, "texts that are not how it is written")
    for _, case in ipairs({
        { "", "unexpected end of text at line 1 column 1 (byte 1)" },
        { "[1,]", "line 1 column 4 (byte 4)" },
        { '{"a":1,\n"b" 2}', "line 2 column 5 (byte 13)" },
        { "[1] x", "line 1 column 5 (byte 5)" },
        { "nul", "line 1 column" },
        { "[01]", "line 1 column 3 (byte 3)" },
        { '"a\nb"', "control character" },
        { "{a:1}", "line 1 column 2 (byte 2)" },
        { "[1e999]", "line 1 column" },
    }) do
        refuses(case[1], case[2], decode, case[1])
    end
    refuses(
        "no text",
        "bad argument #1 to 'decode' (string or buffer expected, got nil)",
        decode,
        nil
    )
    refuses("a number", "string or buffer expected, got number 5", decode, 5)
    refuses("nothing", "bad argument #1 to 'encode' (value expected, got no value)", encode)
    refuses("no options", "table of options or nil expected, got string", encode, 1, "x")
    local known = 'no option named string "depth"; there are empty, max_bytes, max_depth, '
        .. "sort_keys, invalid_utf8"
    refuses("an unknown option", known, encode, 1, { depth = 1 })
    refuses("one without a name", "no option named number 1; there are drop", decode, "1", { 1 })
    refuses("nor with this one", "named boolean true; there", decode, "1", { [true] = 1 })
    refuses("nor with this one", "named table; there", encode, "1", { [{}] = 1 })
    refuses(
        "a wrong one",
        "bad option 'max_depth' of 'decode' (whole number from 1 to 2000",
        decode,
        "1",
        { max_depth = 0 }
    )
    refuses(
        "another",
        "bad option 'sort_keys' of 'encode' (boolean expected",
        encode,
        1,
        { sort_keys = 1 }
    )
    refuses(
        "a word",
        [[bad option 'invalid_utf8' of 'encode' ("raise" or "replace" expected]],
        encode,
        1,
        { invalid_utf8 = "x" }
    )
    refuses(
        "a mark for no table",
        "bad argument #1 to 'array' (table expected, got string",
        json.array,
        "x"
    )
    refuses(
        "a table with a metatable",
        "table without a metatable",
        json.object,
        setmetatable({}, {})
    )
end)

test("bounds", function()
    local deep = ("["):rep(1000) .. ("]"):rep(1000)
    is(encode(decode(deep)), deep, "a thousand levels")
    refuses("one more", "nested deeper than 1000 levels (max_depth)", decode, "[" .. deep .. "]")
    refuses("written", "nested deeper than 1000 levels (max_depth)", encode, { decode(deep) })
    local deeper = ("[1,"):rep(1999) .. "[]" .. ("]"):rep(1999)
    local value = decode(deeper, { max_depth = 2000 })
    is(encode(value, { max_depth = 2000 }), deeper, "two thousand, if asked for")
    refuses(
        "of objects",
        "nested deeper than 2000 levels",
        decode,
        ('{"a":'):rep(2001),
        { max_depth = 2000 }
    )
    local objects = ('{"a":'):rep(2000) .. "1" .. ("}"):rep(2000)
    is(encode(decode(objects, { max_depth = 2000 }), { max_depth = 2000 }), objects, "of objects")
    is(#encode({ ("x"):rep(95) }, { max_bytes = 99 }), 99, "as many bytes as allowed")
    refuses(
        "one more",
        "more than 98 bytes (max_bytes)",
        encode,
        { ("x"):rep(95) },
        { max_bytes = 98 }
    )
    is(decode("12345", { max_bytes = 5 }), 12345, "as many bytes as allowed")
    refuses("one more", "6 bytes, 5 at most (max_bytes)", decode, "123456", { max_bytes = 5 })
end)

-- A finaliser may release, or clear, what is read from; what is read is what there was.
test("finalisers", function()
    local text = "[" .. ('"abcdefgh","%d",'):rep(20000):gsub("%%d", "xyz") .. "1]"
    local done = 0
    for _, change in ipairs({ "release", "clear", "append" }) do
        local b, kept = buffer.new(text), {}
        for i = 1, 100 do
            local proxy = newproxy(true)
            getmetatable(proxy).__gc = function()
                done = done + 1
                b[change](b, ("z"):rep(100))
            end
            kept[i] = proxy
        end
        collectgarbage() -- none of them goes before the text is read
        is(#kept, 100, "all are there")
        kept = nil -- luacheck: ignore 311
        local list = decode(b)
        local good = #list == 40001
        for i = 1, 40000, 2 do
            good = good and list[i] == "abcdefgh" and list[i + 1] == "xyz"
        end
        ok(good, "that " .. change)
    end
    collectgarbage()
    ok(done >= 100, "they ran")
end)

-- A key is in no table any more once another value has taken the place of the table that it was in,
-- or once a list that a script has made weak has let go of it. What comes next is to be its equal.
test("keys of tables that are let go while others are read", function()
    local parts, mark = {}, getmetatable(json.array({}))
    for i = 1, 10000 do
        parts[i] = ('"filler%d%s"'):format(i, ("x"):rep(60))
    end
    local fillers = table.concat(parts, ",")
    parts = nil -- luacheck: ignore 311
    local function key(round) return ("key%d "):format(round):rep(2) end
    local function whole(head, round)
        return ('{"l":%s,"f":[%s],"o":{"%s":7}}'):format(
            head:format(key(round)),
            fillers,
            key(round)
        )
    end
    collectgarbage("setpause", 50)
    collectgarbage("setstepmul", 1000)
    for round = 1, 8 do
        local text = whole('[{"a":{"%s":1},"a":2}]', round)
        collectgarbage()
        is(decode(text).o[key(round)], 7, "another value " .. round)
        mark.__mode = "v"
        text = whole('[{"%s":1},2]', round)
        collectgarbage()
        is(decode(text, { mark_arrays = true }).o[key(round)], 7, "a weak list " .. round)
        mark.__mode = nil
    end
    collectgarbage("setpause", 200)
    collectgarbage("setstepmul", 200)
end)

test("cjson", function()
    local cjson, safe = require("cjson"), require("cjson.safe")
    is(require("cjson"), cjson, "is loaded once")
    is(cjson._VERSION, "2.1.0", "version")
    is(cjson.null, json.null, "null")
    is(cjson.encode({ 1, 2, x = 3 }):len(), #'{"1":1,"2":2,"x":3}', "both sorts of keys are text")
    is(cjson.encode({ a = cjson.empty_array }), '{"a":[]}', "empty_array")
    is(cjson.encode(setmetatable({}, cjson.array_mt)), "[]", "array_mt")
    is(cjson.encode(setmetatable({}, cjson.empty_array_mt)), "[]", "empty_array_mt")
    is(cjson.encode(setmetatable({ a = 1 }, cjson.empty_array_mt)), '{"a":1}', "which fills up")
    is(type(cjson.decode("9007199254740993")), "number", "all numbers are numbers")
    is(getmetatable(cjson.decode("[]")), nil, "no array is marked")
    is(cjson.decode(5), 5, "numbers are text")
    refuses("raises", "Cannot serialise: .x is a function", cjson.encode, { x = print })
    refuses("when reading too", "at line 1 column 4 (byte 4)", cjson.decode, "[1,")
    refuses("one value", "one value expected, got 2", cjson.encode, 1, 2)
    refuses("a value", "one value expected, got 0", cjson.encode)
    local value, why = safe.decode("[1,")
    ok(value == nil and why:find("^unexpected end of text") ~= nil, "safe returns nil and why", why)
    value, why = safe.encode({ print })
    ok(
        value == nil and why == "Cannot serialise: [1] is a function, which cannot be written",
        "likewise",
        why
    )
    value, why = safe.decode(nil)
    ok(value == nil and why:find("got nil", 1, true) ~= nil, "for no text too", why)
    is(safe.decode("1"), 1, "safe succeeds")

    local one = cjson.new()
    is(one.encode_empty_table_as_object(), true, "what is set")
    is(one.encode_empty_table_as_object(false), false, "what is set then")
    is(one.encode({ {} }), "[[]]", "empty tables are arrays")
    is(cjson.encode({ {} }), "[{}]", "for this one alone")
    one.decode_array_with_array_mt(true)
    is(getmetatable(one.decode("[1]")), one.array_mt, "decode_array_with_array_mt")
    one.encode_escape_forward_slash(true)
    is(one.encode("a/b/"), '"a\\/b\\/"', "encode_escape_forward_slash")
    one.encode_skip_unsupported_value_types(true)
    is(one.encode({ 1, print, 2, a = nil }), "[1,2]", "encode_skip_unsupported_value_types")
    is(one.encode({ a = print }), "{}", "in objects")
    refuses("sparse", "an array of 1000 places", one.encode, { [1000] = 1 })
    local convert, ratio, limit = one.encode_sparse_array(true)
    ok(convert == true and ratio == 2 and limit == 10, "encode_sparse_array")
    is(one.encode({ [1000] = 1 }), '{"1000":1}', "converts")
    one.encode_sparse_array(false, 0)
    is(one.encode({ [12] = 1 }), "[" .. ("null,"):rep(11) .. "1]", "or has none too sparse")
    is(one.encode_max_depth(2), 2, "encode_max_depth")
    refuses("too deep", "deeper than 2 levels", one.encode, { { { 1 } } })
    is(one.decode_max_depth(2), 2, "decode_max_depth")
    refuses("too deep", "deeper than 2 levels", one.decode, "[[[]]]")
    is(one.encode_number_precision(5), 5, "encode_number_precision")
    is(one.encode(math.pi), "3.1416", "rounds")
    is(one.encode(1.5e-7), "1.5e-07", "as C does")
    is(one.encode(0.00015), "0.00015", "where no exponent is needed")
    is(one.encode(1234567), "1234567", "whole numbers stay whole")
    is(one.encode_invalid_numbers("null"), "null", "encode_invalid_numbers")
    is(one.encode({ 0 / 0, math.huge }), "[null,null]", "null for them")
    refuses("true", "JSON has no such numbers", one.encode_invalid_numbers, true)
    is(one.decode_invalid_numbers(false), false, "decode_invalid_numbers")
    is(one.encode_keep_buffer(false), false, "encode_keep_buffer")
    refuses("wrong ones", "bad argument #1 to 'encode_max_depth'", one.encode_max_depth, 0)
    refuses(
        "wrong flags",
        "bad argument #1 to 'encode_keep_buffer' (boolean",
        one.encode_keep_buffer,
        1
    )
end)

test("modules", function()
    is(require("json"), json, "require gives the global")
    is(package.loaded.json, json, "which is loaded then")
    local names = {}
    for name in pairs(json) do
        names[#names + 1] = name
    end
    table.sort(names)
    is(table.concat(names, " "), "array decode encode null object", "pairs shows all")
end)

-- What was replaced by a later value of the same key is garbage; its texts may come again.
tap.test("replaced values whose texts come again", function()
    local parts = {}
    local function name(i, kind)
        local letter = string.char(97 + i % 26)
        return ("%s%s%s%d"):format(letter, kind, letter, i)
    end
    local function add(form, ...) parts[#parts + 1] = form:format(...) end
    for i = 1, 60 do
        add('{"a":{"%s":["%s"]},"a":2}', name(i, "key"), name(i, "value"))
    end
    for i = 1, 3000 do
        add('[%d,"%s"]', i, ("y"):rep(300) .. i)
    end
    for i = 60, 1, -1 do
        add('{"%s":"%s"}', name(i, "key"), name(i, "value"))
    end
    local text = "[" .. table.concat(parts, ",") .. "]"
    parts = nil
    collectgarbage()
    -- More than once within one call.
    local pause, step = collectgarbage("setpause", 50), collectgarbage("setstepmul", 2000)
    local wrong = 0
    for _ = 1, 3 do
        local list = decode(text)
        for i = 1, 60 do
            if list[#list + 1 - i][name(i, "key")] ~= name(i, "value") then wrong = wrong + 1 end
        end
    end
    collectgarbage("setpause", pause)
    collectgarbage("setstepmul", step)
    is(wrong, 0, "are what they were")
end)

tap.test("texts that repeat, and that do not", function()
    local values = {}
    for i = 1, 6000 do
        local many = i % 3000 < 1500 and i % 7 or i
        values[i] = ("v"):rep(i % 30) .. many
    end
    local again = decode(encode(values))
    local wrong = 0
    for i = 1, #values do
        if again[i] ~= values[i] then wrong = wrong + 1 end
    end
    is(wrong, 0, "arrive as they are")
    local text = "[" .. ('"once","and","again",'):rep(100000):sub(1, -2) .. "]"
    local list = decode(text)
    is(#list, 300000, "hundreds of thousands of a few")
    is(list[299999], "and", "likewise")
end)

-- Strings are found, and made, where the VM has them: there is one of each.
test("strings of every length", function()
    local wrong = 0
    for length = 0, 40 do
        for round = 1, 8 do
            local word = ("q%dz"):format(round * 7919 + length):rep(9):sub(1, length)
            local text = ('[["%s"],{"%s":1}, "%s"]'):format(word, word, word)
            local first = round % 2 == 0 and { [word] = 1 } -- who has it first
            local list = decode(text)
            local again = { [word] = 2 }
            local good = rawequal(list[1][1], word) and list[2][word] == 1 and list[3] == word
            if not good or again[list[3]] ~= 2 or first and not first[list[1][1]] then
                wrong = wrong + 1
            end
        end
    end
    is(wrong, 0, "are the same as the script's")
    -- So many that the VM's table of them grows, and is cleaned meanwhile.
    for _ = 1, 3 do
        local parts = {}
        for i = 1, 30000 do
            parts[i] = ('"%x"'):format(i * 40503 % 2 ^ 26)
        end
        local list = decode("[" .. table.concat(parts, ",") .. "]")
        for i = 1, #list do
            if list[i] ~= ("%x"):format(i * 40503 % 2 ^ 26) then wrong = wrong + 1 end
        end
        collectgarbage("step", 100)
    end
    is(wrong, 0, "and so are many")
end)

test("tables that were read are like others", function()
    local object = decode('{"__index":{"found":7},"__call":1,"x":[1,2,3]}')
    is(setmetatable({}, object).found, 7, "as a metatable")
    object.__index = nil
    is(setmetatable({}, object).found, nil, "which may change")
    for count = 0, 40 do
        local text = {}
        for i = 1, count do
            text[i] = ('"k%d":%d'):format(i % 30, i)
        end
        local map, seen = decode("{" .. table.concat(text, ",") .. "}"), 0
        for key, value in pairs(map) do
            local number = tonumber(key:sub(2))
            local last = number + 30 <= count and number + 30 or number == 0 and 30 or number
            if value == last then seen = seen + 1 end
            map[key] = nil
        end
        for i = 1, 50 do
            map["n" .. i] = i
        end
        local good = seen == math.min(count, 30) and map.n1 == 1 and map.n50 == 50
        local list = decode("[" .. ("5,"):rep(count) .. "6]")
        list[#list + 1], list.name, list[0] = 7, "name", 0
        good = good and #list == count + 2 and list[count + 2] == 7 and list[count + 1] == 6
        if not (good and list.name == "name" and list[0] == 0) then
            ok(false, "with " .. count .. " entries")
        end
    end
end)

-- The collector rests while a text is read, and does later what it has put off.
test("the collector", function()
    local large = "[" .. ('{"a":[1,"b"]},'):rep(20000) .. "1]"
    ok(collectgarbage("isrunning"), "runs")
    for _ = 1, 3 do
        decode(large)
        ok(collectgarbage("isrunning"), "and does after a text")
        ok(not pcall(decode, large .. "!"), "that is refused too")
        ok(collectgarbage("isrunning"), "likewise")
    end
    collectgarbage("stop")
    decode(large)
    ok(not collectgarbage("isrunning"), "unless it is stopped")
    collectgarbage("restart")
    collectgarbage()
    local before, most = collectgarbage("count"), 0
    decode(large)
    local each = collectgarbage("count") - before
    for i = 1, 60 do
        decode(large)
        for j = 1, i do
            decode('{"a":[' .. j .. "]}")
        end
        most = math.max(most, collectgarbage("count") - before)
    end
    -- After a cycle that has seen some the next waits for twice as much; were there none, 60 times.
    ok(most < 10 * each, ("garbage of few texts is kept: %d KiB of %d"):format(most, each))
end)

tap.done()
