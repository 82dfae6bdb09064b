-- JSON and MessagePack: documents of some kinds, of 73 bytes and of 1 MB, by the modules of
-- node-lua and by lua-cjson, in one process and in turn. See benches/README.md.
--
--     node-lua benches/scripts/json.lua [SECONDS] [KIND] [encode|decode] [CODEC]
--     luajit benches/scripts/json.lua [SECONDS]    -- lua-cjson where it is at home

local seconds, only_kind, only_what, only_codec = ...
seconds = tonumber(seconds) or 0.5
local ROUNDS = 5
local MB = 1000000

-- lua-cjson itself: `require` would give node-lua's module of that name.
local function load_cjson()
    local path = package.searchpath("cjson", package.cpath)
    local open = path and package.loadlib(path, "luaopen_cjson")
    return open and open()
end

local cjson = load_cjson()
local codecs = {}
local function add(name, encode, decode)
    if only_codec and name ~= only_codec then return end
    codecs[#codecs + 1] = { name = name, encode = encode, decode = decode }
end
if cjson then add("lua-cjson", cjson.encode, cjson.decode) end
if rawget(_G, "json") then add("json", json.encode, json.decode) end
if rawget(_G, "msgpack") then add("msgpack", msgpack.encode, msgpack.decode) end

local seed = 1
local function random(n)
    seed = (seed * 16807) % 2147483647
    return seed % n
end
local WORDS = {}
for i = 1, 500 do
    local letters = {}
    for j = 1, 3 + random(9) do
        letters[j] = string.char(97 + random(26))
    end
    WORDS[i] = table.concat(letters)
end
local function words(n)
    local list = {}
    for i = 1, n do
        list[i] = WORDS[1 + random(#WORDS)]
    end
    return table.concat(list, " ")
end

-- Records as an API answers with: keys that repeat, short texts, few numbers.
local function record(i)
    return {
        id = i,
        name = words(2),
        email = words(1) .. "@" .. words(1) .. ".example",
        active = random(2) == 0,
        balance = random(1000000) / 100,
        tags = { words(1), words(1), words(1) },
        address = { street = words(2), city = words(1), zip = tostring(10000 + random(89999)) },
        about = words(12) .. '\n"' .. words(4) .. '"',
    }
end

-- What each document is made of, over and over.
local KINDS = {
    { "records", record },
    {
        "numbers",
        function() return { random(100000) / 1000, random(100000) / 7, random(1000000) } end,
    },
    { "texts", function() return words(30 + random(60)) end },
    { "words", function() return words(1) end },
    {
        "nested",
        function(i)
            local value = i
            for level = 1, 20 do
                value = level % 2 == 0 and { value } or { inner = value }
            end
            return value
        end,
    },
    -- Events of an application: some of everything, other scripts than Latin too.
    {
        "mixed",
        function(i)
            return {
                event = ({ "click", "view", "buy" })[1 + random(3)],
                at = 1700000000 + i * 0.125,
                user = { id = random(1e6), name = words(1) .. " Žižka", admin = false },
                path = "/" .. words(1) .. "/" .. words(1) .. "?q=" .. random(100),
                sizes = { random(2000), random(2000), random(2000) / 4 },
                note = words(random(20)) .. "\t日本語のテキスト",
                ["x" .. random(50)] = random(2) == 0 or nil,
            }
        end,
    },
}

local SMALL = { method = "move", id = 48213, pos = { 12.5, -3.25 }, name = "walker", ok = true }

local clock, call_block = os.clock, 1

-- Seconds per call: the best of some rounds, each codec in turn.
local function measure(calls)
    local best = {}
    for _ = 1, ROUNDS do
        for i, call in ipairs(calls) do
            collectgarbage()
            local count, start, spent = 0, clock(), 0
            repeat
                call()
                count = count + 1
                if count % call_block == 0 then spent = clock() - start end
            until spent >= seconds / ROUNDS
            best[i] = math.min(best[i] or math.huge, spent / count)
        end
    end
    return best
end

local function row(kind, size, value, block)
    call_block = block
    local encoders, decoders = {}, {}
    for i, codec in ipairs(codecs) do
        local encode, decode, text = codec.encode, codec.decode, codec.encode(value)
        encoders[i] = function() return encode(value) end
        decoders[i] = function() return decode(text) end
    end
    for what, calls in pairs({ encode = encoders, decode = decoders }) do
        local is_wanted = not only_what or what == only_what
        local best = is_wanted and measure(calls)
        for i, codec in ipairs(is_wanted and codecs or {}) do
            print(
                ("%-8s %9d B  %s  %-9s %9.1f MB/s %12.0f ns  x %.2f"):format(
                    kind,
                    size,
                    what,
                    codec.name,
                    size / best[i] / 1e6,
                    best[i] * 1e9,
                    best[1] / best[i]
                )
            )
        end
    end
end

local size_of = codecs[1].encode
if not only_kind or only_kind == "small" then row("small", #size_of(SMALL), SMALL, 1000) end
for _, kind in ipairs(only_kind == "small" and {} or KINDS) do
    local list, bytes, i = {}, 0, 0
    while bytes < MB do
        i = i + 1
        list[i] = kind[2](i)
        bytes = bytes + #size_of({ list[i] }) - 1
    end
    if not only_kind or only_kind == kind[1] then row(kind[1], #size_of(list), list, 1) end
end
