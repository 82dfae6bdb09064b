-- What a script puts in the place of functions is not used by the library's buffers and packets.

local packet = require "packet"
local LAYOUT = packet.layout {
    endian = "B",
    { "id", "u16" },
    { "wide", "u64" },
    { "list", "i32", 20 },
    { "name", "s2" },
    { "steps", "varint" },
    { "delta", "zigzag" },
}
local list = {}
for i = 1, 20 do
    list[i] = -i
end
local VALUES = {
    id = 258,
    wide = 2 ^ 60,
    list = list,
    name = "walker",
    steps = 0xffffffffffffffffULL,
    delta = -2 ^ 60,
}

-- Everything once, so that what is loaded late is there; kept are only functions of the library.
local kept = {}
for _, name in ipairs {
    "new",
    "append",
    "tostring",
    "length",
    "pack",
    "unpack",
    "find",
    "split",
    "slice",
    "u8",
    "u16be",
    "u64le",
    "set_u32be",
    "put_u8",
    "put_i64be",
    "put_f64be",
    "f64be",
    "varint",
    "zigzag",
    "put_varint",
    "put_zigzag",
    "text",
    "index_of",
    "put",
    "skip",
    "reset",
} do
    kept[name] = buffer[name]
end

local function run()
    local out, n = {}, 0
    local function add(...)
        local count = kept.select("#", ...)
        for i = 1, count do
            n = n + 1
            out[n] = kept.text_of((kept.select(i, ...)))
        end
    end
    local b = kept.new("abc")
    add(kept.append(b, "def"), kept.tostring(b), kept.length(b), kept.find(b, "cd"))
    kept.pack(b, ">I2 s1 i8", 7, "text", 2LL ^ 60)
    add(kept.unpack(b, ">I2 s1 i8", 7))
    add(kept.u8(b, 1), kept.u16be(b, 2), kept.u64le(b, 0), kept.f64be(b, 1))
    kept.set_u32be(b, 0, 0x61626364)
    kept.put_u8(b, 200)
    kept.put_i64be(b, -5)
    kept.put_f64be(b, 0.1)
    local at = kept.length(b)
    kept.put_varint(b, 2 ^ 53)
    kept.put_zigzag(b, -77)
    local value, after = kept.varint(b, at)
    add(value, after, kept.zigzag(b, after))
    add(kept.text(b, 0, 5), kept.index_of(b, 99), kept.tostring(kept.split(b, 3)))
    add(kept.tostring(kept.slice(b, 1, 2)), kept.tostring(kept.skip(kept.put(b, "put"), 2)))
    add(kept.length(kept.reset(b)), b .. "x", b == kept.new(""))
    local encoded = LAYOUT.encode(LAYOUT, VALUES)
    local t = LAYOUT.decode(LAYOUT, encoded)
    add(kept.tostring(encoded), t.id, t.wide, t.list[20], t.name, t.steps, t.delta)
    LAYOUT.set.list(encoded, 0, 3, 99)
    add(LAYOUT.get.list(encoded, 0, 3), LAYOUT.get.wide(encoded))
    add(kept.pcall(kept.u8, b, 99))
    add(kept.pcall(kept.put_u8, b, {}))
    add(kept.pcall(LAYOUT.encode, LAYOUT, { id = -1 }))
    add(kept.pcall(LAYOUT.decode, LAYOUT, b))
    return kept.concat(out, "|")
end

kept.select, kept.text_of, kept.pcall, kept.concat = select, tostring, pcall, table.concat
local write, exit, next, type, rawset = io.write, os.exit, next, type, rawset
local setmetatable, getmetatable = setmetatable, getmetatable
local wanted = run()

local function hostile() return -64, -64, -64 end
for _, place in
    next,
    {
        buffer,
        packet,
        string,
        table,
        math,
        bit,
        coroutine,
        debug,
        io,
        require "ffi",
        package.loaded,
        package.preload,
        jit,
        _G,
    }
do
    for name, value in next, place do
        local is_one = type(value) == "function" or place == package.loaded
        if is_one then rawset(place, name, hostile) end
    end
end
getmetatable("").__index = hostile
setmetatable(buffer, { __index = hostile })

local got = run()
write(got == wanted and "ok" or "got\n" .. got .. "\nwanted\n" .. wanted, "\n")
exit(got == wanted and 0 or 1)
