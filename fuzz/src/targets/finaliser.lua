-- Calls functions of a buffer while garbage waits to be collected whose finalisers change that
-- very buffer. What is not compiled allocates at every pointer, and so may run one at any of them.

jit.off()

local packet = require "packet"

local SIZES = { 0, 1, 9, 31, 32, 33, 100, 895, 896, 897, 2000, 5000 }
local LENGTH_MAX = 20000
local ROUNDS = 60
local TRAPS = 3

local input, at
local function take()
    at = at + 1
    return input:byte(at) or 0
end

-- The buffer under attack, how often a finaliser has run, and what else shows its bytes: each must
-- stay as it was.
local victim, fired
local holders

local function hold(object)
    if #holders < 8 then holders[#holders + 1] = { object, object:tostring() } end
end

-- What finalisers do.
local ATTACKS = {
    function(b) b:release() end,
    function(b) b:clear() end,
    function(b) b:append("cc") end,
    function(b) b:append(("c"):rep(3000)) end,
    function(b) b:append(b) end,
    function(b) hold(buffer.new(b)) end,
    function(b)
        local sent = b:valid() and wire_copy(b)
        if sent then hold(sent) end
    end,
    function(b) b:remove(5) end,
    function(b) b:split(3) end,
    function(b) hold(b:split()) end,
    function(b)
        b:clear()
        b:append(("d"):rep(950))
        b:remove(900)
    end,
    function(b)
        if b:valid() then b:put_u32be(7):reserve(2000) end
    end,
    function(b)
        if b:valid() then b:pack("s4 I8", "x", 2 ^ 60) end
    end,
}

local LAYOUT = packet.layout {
    endian = "B",
    { "a", "u16" },
    { "b", "u64" },
    { "c", "f64", 3 },
    { "d", "char", 5 },
    { "e", "i64", 20 },
    { "f", "u32", 20 },
    { "g", "s2" },
    { "h", "varint" },
    { "i", "zigzag" },
    { "j", "u8" },
}

local function fields()
    local e, f = {}, {}
    for i = 1, 20 do
        e[i], f[i] = -i, i
    end
    return {
        a = 1,
        b = 2 ^ 60,
        c = { 1, 2, 3 },
        d = "xyz",
        e = e,
        f = f,
        g = ("g"):rep(100),
        h = 0xffffffffffffffffULL,
        i = -2 ^ 60,
        j = 9,
    }
end

local CALLS = {
    function(b) LAYOUT:encode(fields(), b) end,
    function(b)
        local whole = LAYOUT:encode(fields())
        b:append(whole)
        local t = LAYOUT:decode(b, #b - #whole)
        assert(#t.g <= 65535)
    end,
    function(b) return LAYOUT.get.b(b), LAYOUT.get.c(b, 0, 2), LAYOUT.get.d(b) end,
    function(b) LAYOUT.set.b(b, 0, 2 ^ 61) end,
    function(b) LAYOUT.set.e(b, 0, 3, -5LL) end,
    function(b) LAYOUT.set.d(b, 0, "tag") end,
    function(b) b:varint(0) end,
    function(b) b:zigzag(1) end,
    function(b) b:put_varint(0xffffffffffffffffULL) end,
    function(b) b:put_varint(300) end,
    function(b) b:put_zigzag(-2 ^ 62) end,
    function(b) b:put(("p"):rep(40)) end,
    function(b) return b:text(0), b:text(1, 2) end,
    function(b) return b:index_of(99), b:index_of(1, 2) end,
    function(b) b:skip(2) end,
    function(b) b:pack("i8 s2 z d I16 >I3", 7LL, "text", 12, 0.5, 2 ^ 63 + 0ULL, "77") end,
    function(b) b:unpack("I8 i8 d c3") end,
    function(b) return b:tostring(), b .. "x" .. 1.5, b == buffer.new "c" end,
    function(b) return b:find("cd"), b:find(12) end,
    function(b) return b:slice(0, 2), buffer.new(b) end,
    function(b) b:split(2) end,
    function(b)
        b:append(0.1)
        b:append(buffer.new(b))
    end,
    function(b) return wire_copy(b) end,
}
for _, kind in ipairs {
    "u8",
    "i8",
    "u16le",
    "u16be",
    "i16le",
    "i16be",
    "u32le",
    "u32be",
    "i32le",
    "i32be",
    "u64le",
    "u64be",
    "i64le",
    "i64be",
    "f32le",
    "f32be",
    "f64le",
    "f64be",
} do
    local get, set, put = buffer[kind], buffer["set_" .. kind], buffer["put_" .. kind]
    CALLS[#CALLS + 1] = function(b) return get(b, 0), get(b, 1) end
    CALLS[#CALLS + 1] = function(b)
        set(b, 0, 1)
        set(b, 2, 2)
    end
    CALLS[#CALLS + 1] = function(b) put(b, 3) end
end

local function trap(attack)
    local mine = victim
    local proxy = newproxy(true)
    getmetatable(proxy).__gc = function()
        fired = fired + 1
        attack(mine)
    end
end

function fuzz(bytes)
    input, at, holders, fired = bytes, 0, {}, 0
    collectgarbage("setpause", 1)
    collectgarbage("setstepmul", 400)
    local wrong
    while at < #input and not wrong do
        local size = SIZES[take() % #SIZES + 1]
        victim = buffer.new(("a"):rep(size))
        if take() % 3 == 0 then hold(buffer.new(victim)) end
        local attack = ATTACKS[take() % #ATTACKS + 1]
        local call = CALLS[take() % #CALLS + 1]
        for _ = 1, TRAPS do
            trap(attack)
        end
        local before = fired
        for _ = 1, ROUNDS do
            pcall(call, victim)
            if #victim > LENGTH_MAX then victim:clear() end
            if fired >= before + TRAPS then break end
        end
        -- Whatever has happened: it is a buffer, and others have noticed nothing. Nor does anything
        -- happen while it is looked at.
        collectgarbage "stop"
        local length = victim:length()
        if
            #victim:tostring() ~= length
            or not victim:valid() and length > 0
            or victim:unfill() < 0
        then
            wrong = "a buffer of " .. length .. " bytes"
        end
        collectgarbage "restart"
    end
    for _, holder in ipairs(holders) do
        if holder[1]:tostring() ~= holder[2] then wrong = "a holder has noticed" end
    end
    collectgarbage("setpause", 200)
    if wrong then error(wrong) end
end
