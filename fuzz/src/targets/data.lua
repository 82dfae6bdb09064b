-- Values read from JSON and MessagePack, and written, while finalisers run and memory ends. Run by
-- data.rs, which provides `reference`, what others find in the bytes, as `describe` below has it,
-- and `hold` and `let_go`, which make memory scarce.

local ffi = require "ffi"

local native = native_for_tests
local json = native.load "json"(native)
local msgpack = native.load "msgpack"(native)
local cjson = native.load "cjson"(native, nil, "cjson.safe")
local MARK, EXTENSION = getmetatable(json.array()), getmetatable(msgpack.ext(0, ""))

local int64, uint64 = ffi.typeof "int64_t", ffi.typeof "uint64_t"
local double = ffi.new "union { double number; struct { uint32_t low, high; }; }"

local function number_text(number)
    if number ~= number then return "dnan" end
    double.number = number
    return ("d%08x%08x"):format(double.high, double.low)
end

--- What a value is, in words that say all of it; `null` is what stands for null. Marks of lists and
--- extensions, which messages do not carry, are part of it if `has_marks`; entries that are null
--- are not if `is_sparse`.
local function describe(value, null, has_marks, is_sparse)
    local kind = type(value)
    if value == nil or rawequal(value, null) then return "n" end
    if kind == "boolean" then return value and "t" or "f" end
    if kind == "number" then return number_text(value) end
    if kind == "userdata" then
        assert(value:valid(), "a buffer that was released")
        value, kind = value:tostring(), "string"
    end
    if kind == "string" then return "s" .. #value .. ":" .. value end
    if kind == "cdata" then
        assert(ffi.istype(int64, value) or ffi.istype(uint64, value))
        return (ffi.istype(int64, value) and "i" or "u") .. tostring(value):match "^-?%d+"
    end
    assert(kind == "table", kind)
    local metatable = getmetatable(value)
    if has_marks and metatable == EXTENSION then
        return "x" .. value.type .. "," .. #value.data .. ":" .. value.data
    end
    local keys, values = {}, {}
    for key, inner in next, value do
        local described = describe(key, null)
        local what = describe(inner, null, has_marks, is_sparse)
        if what ~= "n" or not is_sparse then
            keys[#keys + 1], values[described] = described, what
        end
    end
    table.sort(keys)
    for i, key in ipairs(keys) do
        keys[i] = key .. values[key]
    end
    assert(metatable == nil or metatable == MARK or metatable == EXTENSION)
    return (has_marks and metatable and "[" or "(") .. table.concat(keys) .. ")"
end

local input, at
local function take()
    at = at + 1
    return input:byte(at) or 0
end

local COUNTS =
    { 0, 1, 2, 3, 7, 15, 16, 17, 31, 63, 64, 127, 128, 129, 130, 255, 256, 257, 400, 1500 }
local NUMBERS = {
    0,
    1,
    -1,
    -0.0,
    0.5,
    127,
    128,
    255,
    256,
    65536,
    2 ^ 31,
    2 ^ 32,
    2 ^ 53 - 1,
    2 ^ 53,
    -2 ^ 53,
    2 ^ 53 + 2,
    2 ^ 63,
    2 ^ 64,
    1e15,
    1e22,
    1e300,
    5e-324,
    0.1,
    -1.5e-7,
}
local WHOLE = {
    9007199254740993LL,
    -9007199254740993LL,
    9223372036854775807LL,
    -9223372036854775807LL - 1,
    9223372036854775808ULL,
    18446744073709551615ULL,
}

local function words(length, letter)
    local text = string.char(letter):rep(length)
    return take() % 2 == 0 and text or text:sub(2) .. "z"
end

local function text()
    local length, letter = take(), take()
    if length > 240 then length = (length - 240) * 350 end
    return words(length, letter)
end

--- The bytes of a number, the most significant first.
local function big(number, bytes)
    local result = ""
    for _ = 1, bytes do
        result = string.char(number % 256) .. result
        number = math.floor(number / 256)
    end
    return result
end

-- How either form is written, more ways than `encode` has.
local JSON, MSGPACK = {}, {}

function JSON.text(value)
    if take() % 4 == 0 then
        local escapes =
            { [["\u0000\ud83d\ude00]], [["\n\/\"\\]], [["\uDC00]], [["\u00e9]], [["\x]] }
        return escapes[take() % 5 + 1] .. value:gsub('["\\%c]', "") .. '"'
    end
    return '"' .. value:gsub('["\\%c]', "-") .. '"'
end
function JSON.number(value)
    local forms = { "%.17g", "%.14g", "%.3e", "%.0f" }
    return forms[take() % 4 + 1]:format(value)
end
function JSON.whole(value)
    local digits = tostring(value):match "^-?%d+"
    return take() % 4 == 0 and digits .. "0" or digits
end
function JSON.word() return ({ "null", "true", "false", " null\n", "nul" })[take() % 5 + 1] end
function JSON.bytes(value) return JSON.text(value) end
function JSON.list(items) return "[" .. table.concat(items, ",") .. "]" end
function JSON.map(keys, items)
    for i, item in ipairs(items) do
        items[i] = keys[i] .. ":" .. item
    end
    return "{" .. table.concat(items, ", ") .. "}"
end
function JSON.key(value) return JSON.text(tostring(value)) end

local function head(count, small, small_max, first, sizes)
    local form = take() % 4
    if count <= small_max and form ~= 3 then return string.char(small + count) end
    for i, size in ipairs(sizes) do
        if count < 256 ^ size and (form ~= 2 or i == #sizes) then
            return string.char(first + i - 1) .. big(count, size)
        end
    end
end
function MSGPACK.text(value) return head(#value, 0xa0, 31, 0xd9, { 1, 2, 4 }) .. value end
function MSGPACK.bytes(value)
    if take() % 3 == 0 then
        return head(#value, 0, -1, 0xc7, { 1, 2, 4 }) .. big(take(), 1) .. value
    end
    return head(#value, 0, -1, 0xc4, { 1, 2, 4 }) .. value
end
function MSGPACK.number(value)
    if take() % 4 == 0 then return "\xcb" .. buffer.pack(">d", value):tostring() end
    if take() % 8 == 0 then return "\xca" .. buffer.pack(">f", value):tostring() end
    return msgpack.encode(value)
end
function MSGPACK.whole(value) return msgpack.encode(value) end
function MSGPACK.word() return ({ "\xc0", "\xc2", "\xc3", "\xff", "\xc1" })[take() % 5 + 1] end
function MSGPACK.list(items)
    local before = head(#items, 0x90, 15, 0xdc, { 2, 4 })
    return before .. table.concat(items)
end
function MSGPACK.map(keys, items)
    for i, item in ipairs(items) do
        items[i] = keys[i] .. item
    end
    return head(#items, 0x80, 15, 0xde, { 2, 4 }) .. table.concat(items)
end
function MSGPACK.key(value)
    local kind = take() % 8
    if kind == 0 then return "\xcb" .. buffer.pack(">d", value):tostring() end
    if kind == 1 then return take() % 8 == 0 and "\xc0" or "\xc3" end
    if kind == 2 then return MSGPACK.bytes(tostring(value)) end
    if kind <= 4 then return MSGPACK.text("k" .. value) end
    return msgpack.encode(value)
end

local BYTES_MAX = 60000

--- A document in a form, made by the rest of the input.
local function build(form, level)
    local kind = take() % 12
    if kind == 0 then return form.number(NUMBERS[take() % #NUMBERS + 1]) end
    if kind == 1 then return form.whole(WHOLE[take() % #WHOLE + 1]) end
    if kind == 2 then return form.word() end
    if kind == 3 then return form.text(text()) end
    if kind == 4 then return form.bytes(text()) end
    if level > 40 or at > #input then return form.number(take()) end
    if kind == 5 then
        -- Many levels of one.
        local inner = build(form, level + 1)
        for _ = 1, take() do
            inner = take() % 2 == 0 and form.list { inner } or form.map({ form.key(1) }, { inner })
        end
        return inner
    end
    local count, items, keys = COUNTS[take() % #COUNTS + 1], {}, {}
    local step, some = NUMBERS[take() % #NUMBERS + 1], {}
    -- Few different ones, so that the input reaches many.
    for i = 1, take() % 4 + 1 do
        some[i] = build(form, level + 1)
    end
    local bytes = #table.concat(some)
    count = math.min(count, math.max(1, math.floor(BYTES_MAX / (bytes + 1))))
    local start, modulus = take(), take() % 5 == 0 and 7 or 1e9
    local one_key = kind >= 9 and take() % 4 == 0
    for i = 1, count do
        items[i] = some[i % #some + 1]
        if kind >= 9 then
            local number = (start + i % modulus) * step
            keys[i] = one_key and MSGPACK == form and msgpack.encode(number) or form.key(number)
        end
    end
    return kind < 9 and form.list(items) or form.map(keys, items)
end

-- What finalisers do to what is being read, and to what the modules use.
local ATTACKS = {
    function(victim) victim:release() end,
    function(victim) victim:clear() end,
    function(victim)
        victim:clear()
        victim:append(("x"):rep(5000))
    end,
    function(victim) victim:append(victim) end,
    function(_, options)
        for name in next, options do
            options[name] = nil
        end
    end,
    function(_, options) options.max_depth = 1 end,
    function() collectgarbage() end,
    function() json.decode('[[{"a":[1,2,{}]},"b"],"c"]') end,
    function() msgpack.decode(msgpack.encode { { {} }, buffer.new "x", "long enough" }) end,
    function() MARK.__mode = "kv" end,
    function()
        MARK.__newindex, MARK.__index = error, error
    end,
    function() error "a finaliser" end,
}

local function trap(attack, victim, options)
    local proxy = newproxy(true)
    getmetatable(proxy).__gc = function() attack(victim, options) end
end

local NULL = {}

--- What others find, and on how many levels; or nil, nil and why they refuse it; or nothing.
local function others(bytes, rules)
    local found, levels = reference(bytes, rules)
    if found then return found, levels end
    return nil, nil, levels
end

--- Options, and what they mean to `reference`.
local function options_of(bits, is_json)
    local options, rules = {}, is_json and "j" or ""
    local depth = 1000
    local function has(bit) return math.floor(bits / 2 ^ bit) % 2 == 1 end
    if has(0) then
        depth = take() % 150 + 1
        options.max_depth = depth
    end
    if has(1) then
        options.int64, rules = false, rules .. "i"
    end
    if has(2) then
        options.drop_nulls, rules = true, rules .. "n"
    end
    local null = json.null
    if has(3) then
        null = NULL
        options.null = null
    end
    if is_json and has(4) then
        options.mark_arrays, rules = has(5), rules .. (has(5) and "a" or "")
    else
        rules = rules .. "e"
    end
    if not is_json and has(4) then options.binary = has(5) and "buffer" or "string" end
    if not is_json and has(6) then options.from = 1 end
    return options, rules, depth, null
end

--- Bytes that may be used from here on until `let_go` is called with what this returns.
local function make_scarce(room)
    collectgarbage()
    local held = math.floor(MEMORY - collectgarbage "count" * 1024 - room)
    return hold(tostring(held)) and tostring(held)
end

--- What is read agrees with what others find, and can be written and sent.
local function check_decode(bytes, is_json, bits)
    local decode = is_json and json.decode or msgpack.decode
    local encode = is_json and json.encode or msgpack.encode
    local options, rules, depth, null = options_of(bits, is_json)
    local attack, room = take(), take()
    local expected, levels, why_not = others(bytes, rules)
    local source = take() % 2 == 0 and bytes or buffer.new(bytes)
    local is_limited, held = room % 4 == 0, nil
    if is_limited then held = make_scarce(take() * 300) end
    if attack % 4 == 0 then
        local victim = type(source) == "string" and buffer.new "v" or source
        trap(ATTACKS[take() % #ATTACKS + 1], victim, take() % 2 == 0 and options or {})
        collectgarbage "step"
    end
    local ok, value, behind = pcall(decode, source, options)
    if held then let_go(held) end
    -- The finaliser may not have been called yet: not while the value is described, below.
    if attack % 4 == 0 then collectgarbage() end
    MARK.__mode, MARK.__index, MARK.__newindex = nil, nil, nil
    if attack % 4 == 0 or is_limited then
        -- Anything may be refused then, or have changed; what was read is whole all the same.
        if ok then describe(value, null) end
        return ok
    end
    if not ok then
        assert(type(value) == "string" and value:find "decode: ", value)
        local rest = not is_json and value:match "bytes behind the value, from byte (%d+)"
        if rest and expected then
            -- The references read what comes first.
            local first = decode(bytes:sub(1, rest - 1), options)
            assert(describe(first, null, true) == expected, "others find something else")
            return true
        end
        assert(not expected or levels > depth and value:find "nested", value)
        return false
    end
    assert(not why_not, why_not)
    assert(not levels or levels <= depth, "too deep")
    local found = describe(value, null, true)
    assert(not expected or found == expected, "others find something else")
    if options.from then
        local again = decode(bytes:sub(1, behind - 1), { int64 = options.int64 })
        local whole = decode(bytes, { from = 1, int64 = options.int64 })
        assert(describe(again, json.null) == describe(whole, json.null), "another value")
    end
    if options.null or options.drop_nulls then return true end
    local plain = describe(value, null)
    local is_written, written = pcall(encode, value)
    if is_written then
        options.from = nil
        local again = decode(written, options)
        -- Of MessagePack, a map of numbers may be written as a list, with null in between.
        local is_same = describe(again, null, false, not is_json)
            == describe(value, null, false, not is_json)
        assert(is_same, "what is written is something else")
    else
        assert(not is_json, written)
    end
    local is_sent, copy = wire_copy(value)
    if is_sent then
        assert(describe(copy, null) == plain, "what is sent is something else")
    else
        assert(copy:find "deeper than", copy)
    end
    return true
end

--- A Lua value made by the rest of the input, with some in it that cannot be written.
local function value_of(level)
    local kind = take() % 16
    if kind == 0 then return NUMBERS[take() % #NUMBERS + 1] end
    if kind == 1 then return WHOLE[take() % #WHOLE + 1] end
    if kind == 2 then return ({ json.null, true, false, 0 / 0, 1 / 0 })[take() % 5 + 1] end
    if kind == 3 then return text() end
    if kind == 4 then return buffer.new(text()) end
    if kind == 5 then return msgpack.ext(take() - 128, text()) end
    if kind == 6 and take() % 8 == 0 then
        local released = buffer.new "r"
        released:release()
        local odd =
            { print, io.stdout, ffi.new "int", newproxy(), coroutine.create(print), released }
        return odd[take() % #odd + 1]
    end
    local made, count = {}, COUNTS[take() % #COUNTS + 1]
    if kind == 7 then json.array(made) end
    if kind == 8 then json.object(made) end
    if kind == 9 then setmetatable(made, { __index = error, __len = error, __pairs = error }) end
    if level > 30 or at > #input then return made end
    local inner = value_of(level + 1)
    for i = 1, count do
        if kind <= 11 then
            made[i] = inner
        elseif kind == 12 then
            made["k" .. i] = inner
        elseif kind == 13 then
            made[i * 0.5] = inner
        elseif kind == 14 then
            made[i * 3 - 2] = i
        else
            made[text()] = value_of(level + 1)
            if at > #input then break end
        end
    end
    if take() % 32 == 0 then made[take() % 2 == 0 and "cycle" or 1] = made end
    if take() % 32 == 0 then made[true] = 1 end
    return made
end

--- What is written is read by others, and the same here.
local function check_encode(is_json, bits)
    local function has(bit) return math.floor(bits / 2 ^ bit) % 2 == 1 end
    local value = value_of(0)
    local options = {}
    if has(0) then options.max_depth = take() % 100 + 1 end
    if has(1) then options.max_bytes = take() * 50 + 1 end
    if has(2) then options.sort_keys = true end
    if has(3) then options.empty = "array" end
    if is_json and has(4) then options.invalid_utf8 = "replace" end
    local encode = is_json and json.encode or msgpack.encode
    local is_limited, held = has(5), nil
    if is_limited then held = make_scarce(take() * 300) end
    local ok, bytes = pcall(encode, value, options)
    if held then let_go(held) end
    if not ok then return assert(is_limited or bytes:find "encode: ", bytes) end
    assert(#bytes <= (options.max_bytes or math.huge))
    if is_limited then return end
    local expected, _, why_not = others(bytes, is_json and "je" or "e")
    assert(not why_not, why_not)
    local decode = is_json and json.decode or msgpack.decode
    local found = describe(decode(bytes), json.null, true)
    assert(not expected or found == expected, "others find something else in what is written")
    if options.sort_keys then assert(encode(value, options) == bytes, "another order") end
end

--- The other names of JSON, which return what is wrong.
local function check_cjson(bytes, bits)
    cjson.decode_array_with_array_mt(bits % 2 == 1)
    cjson.encode_sparse_array(bits % 4 >= 2, take() % 4, take() % 20)
    local value, why = cjson.decode(bytes)
    local expected, _, why_not = others(bytes, bits % 2 == 1 and "jia" or "ji")
    if value == nil then
        assert(type(why) == "string" and not expected, why)
        return
    end
    assert(not why_not, why_not)
    assert(not expected or describe(value, cjson.null, true) == expected, "others find else")
    local written = cjson.encode(value)
    if written then
        assert(describe(cjson.decode(written), cjson.null) == describe(value, cjson.null))
    end
end

function fuzz(bytes)
    input, at = bytes, 0
    collectgarbage("setpause", 100)
    local form, bits = take() % 8, take()
    local is_json = form % 2 == 0
    if form >= 6 then return check_encode(is_json, bits) end
    local document
    if form < 2 then
        document = bytes:sub(9)
    else
        document = build(is_json and JSON or MSGPACK, 0)
        if form >= 4 then
            -- Wrong in a few places, or cut.
            for _ = 1, take() % 4 do
                local place = (take() * 256 + take()) % (#document + 1)
                local with = take()
                document = document:sub(1, place)
                    .. (with == 255 and "" or string.char(with) .. document:sub(place + 2))
            end
        end
    end
    check_decode(document, is_json, bits)
    if is_json and take() % 4 == 0 then check_cjson(document, bits) end
end
