-- What programs call that lies outside of the language, or goes through C: each takes a number and
-- returns one that follows from it. Those in `waiting` must be called where a call may wait.

local ffi = require("ffi")
local generate = require("generate")
local packet = require("packet")

ffi.cdef("void qsort(void *, size_t, size_t, int (*)(const int *, const int *));")

local M = { plain = {}, waiting = {} }
local plain, waiting = M.plain, M.waiting

local function spin(count)
    local sum = 0
    for i = 1, count do
        sum = (sum * 3 + i) % 65537
    end
    return sum
end

local function mix(...)
    local sum = 0
    for i = 1, select("#", ...) do
        local x = select(i, ...)
        sum = (sum * 31 + (tonumber(x) or #tostring(x))) % 65537
    end
    return sum
end

-- C functions that call back ----------------------------------------------------------------------

local function numbers(n)
    local random, t = generate.random(n), {}
    for i = 1, n % 20 + 3 do
        t[i] = random(1000)
    end
    return t
end

function plain.sort(n)
    local t = numbers(n)
    table.sort(t, function(a, b) return spin(3) > 0 and a < b end)
    return mix(unpack(t))
end

-- Coroutines below a function that cannot be left.
function plain.sort_by_coroutines(n)
    local t = numbers(n)
    table.sort(t, function(a, b)
        local step = coroutine.wrap(function()
            coroutine.yield()
            coroutine.yield(nil)
            return spin(4) > 0 and a > b
        end)
        return step() == nil and step() == nil and step()
    end)
    return mix(unpack(t))
end

function plain.gsub(n)
    return mix((("a1b22c" .. n):gsub("%d+", function(d) return "<" .. spin(#d + 9) .. ">" end)))
end

function plain.load(n)
    local pieces, at = { "return ", tostring(n), "+", "2" }, 0
    return load(function()
        at = at + 1
        return spin(5) > 0 and pieces[at]
    end)()
end

function plain.handler(n)
    local _, sum = xpcall(error, function(why) return why % 65537 + spin(20) end, n)
    return sum
end

local compare = ffi.cast(
    "int (*)(const int *, const int *)",
    function(a, b) return spin(4) > 0 and a[0] - b[0] or 0 end
)

function plain.qsort(n)
    local t = numbers(n)
    local array = ffi.new("int[?]", #t, t)
    ffi.C.qsort(array, #t, 4, compare)
    local sum = 0
    for i = 0, #t - 1 do
        sum = (sum * 31 + array[i]) % 65537
    end
    return sum
end
-- What calls back into Lua must not be called by compiled code.
jit.off(plain.qsort)

-- A C module that resumes coroutines, and calls functions. See tests/c/coroutines.c.
local module = require("coroutines")

function plain.resumed_by_c(n)
    local co = coroutine.create(function(x)
        for i = 1, 3 do
            x = x + coroutine.yield(spin(x % 9) + i)
        end
        local inner = coroutine.wrap(function()
            for i = 1, 3 do
                coroutine.yield(spin(i))
            end
        end)
        return inner() + inner()
    end)
    return mix(module.resume(co, n), mix(module.resume(co, 1), mix(coroutine.resume(co, 2))))
end

function plain.called_by_c(n)
    return mix(module.call(function(x)
        local function five()
            for i = 1, 5 do
                coroutine.yield(i)
            end
        end
        for i in coroutine.wrap(five) do
            x = x + i
        end
        return spin(x % 50), x
    end, n))
end

-- The VM ------------------------------------------------------------------------------------------

function plain.errno(n)
    ffi.errno(n % 100)
    local sum = 0
    for i = 1, n % 60 do
        sum = sum + spin(i % 5)
        if i % 20 == 0 then sum = sum + ffi.errno() end
    end
    return (sum + ffi.errno()) % 65537
end

function plain.int64(n)
    local x = 1LL
    for i = 1, n % 60 do
        x = x * 31LL + i
        if x % 3LL == 0LL then x = x + 1LL end
    end
    return tonumber(x % 65537LL)
end

local point = ffi.metatype("struct { int x; }", {
    __index = function(self, key) return self.x + #key + spin(5) end,
    __add = function(a, b) return spin(5) + a.x + b.x end,
})

function plain.ffi_metamethods(n) return mix(point(n % 99).some, point(n % 9) + point(3)) end

function plain.traceback(n)
    local lines = select(2, debug.traceback("x"):gsub("\n", ""))
    return mix(n, lines, debug.getinfo(1, "l").currentline)
end

function plain.strings(n)
    local s, t = "", {}
    for i = 1, n % 30 do
        s = s .. i % 10
        t[#t + 1] = s
    end
    local sum = 0
    for word in ("the quick brown fox " .. n):gmatch("%a+") do
        sum = mix(sum, word:byte(1, -1))
    end
    return mix(sum, table.concat(t, ","), s:upper():rep(2))
end

function plain.deep(n)
    local function down(k) return k == 0 and 0 or 1 + down(k - 1) end
    local function tail(k, sum) return k == 0 and sum or tail(k - 1, (sum * 3 + k) % 65537) end
    return mix(down(n % 150), tail(n % 200, 1))
end

function plain.nest(n)
    local function at(depth)
        if depth == 0 then return spin(n % 40) end
        return coroutine.wrap(function()
            local inner = at(depth - 1)
            coroutine.yield(inner)
            return spin(3)
        end)()
    end
    return at(n % 7)
end

local made, finalised = 0, 0

function plain.finalisers()
    for _ = 1, 3 do
        made = made + 2
        local function finalise() finalised = finalised + spin(20) / spin(20) end
        getmetatable(newproxy(true)).__gc = finalise
        ffi.gc(ffi.new("int[1]"), finalise)
    end
    return 1
end

--- Whether all finalisers have run, once each.
function M.all_finalised()
    collectgarbage()
    collectgarbage()
    return made == finalised
end

function plain.collect(n)
    if n % 16 == 0 then collectgarbage("step", 50) end
    if n % 64 == 0 then jit.flush() end
    return 1
end

-- The library -------------------------------------------------------------------------------------

function plain.buffers(n)
    local b = buffer.new(16)
    for i = 1, n % 20 do
        b:put_u16be(i * n % 65536):put_varint(i)
        b:append("x")
    end
    local sum, at = b:length(), 0
    for _ = 1, n % 20 do
        local x, after = b:varint(at + 2)
        sum, at = (sum * 31 + b:u16be(at) + x) % 65537, after + 1
    end
    local half = b:split(n % 30)
    return mix(sum, half:length(), half:tostring(), b:find("x") or 0)
end

local layout = packet.layout({
    endian = "B",
    { "id", "u16" },
    { "flags", "u8" },
    { "pos", "f32", 3 },
    { "name", "s2" },
})

function plain.packets(n)
    local fields = { id = n % 65536, flags = n % 256, pos = { 1, n % 99, 3 }, name = "n" .. n }
    local b = layout:encode(fields)
    layout.set.flags(b, 0, 7)
    local back = layout:decode(b, 0)
    return mix(back.id, back.flags, back.pos[2], back.name, layout.get.id(b, 0))
end

function plain.pack(n)
    local b = buffer.pack("<i8>I4zs2n", -n, n, "z", "s" .. n, n / 2)
    local a, c, _, s, d = b:unpack("<i8>I4zs2n")
    return mix(a, c, s, d)
end

-- Waiting, and other contexts ---------------------------------------------------------------------

local me = context.self()

--- The context that answers; given to `start`.
local echo

function M.start(handle) echo = handle end

function waiting.query(n)
    local ok, answer = context.query(echo, { n, text = "t" .. n })
    return ok and mix(answer[1], answer.text) or 0
end

function waiting.message_to_self(n)
    context.send(me, n)
    local _, value = context.recv(me)
    return value
end

function waiting.sleep(n)
    if n % 8 == 0 then timer.sleep(0) end
    return n
end

-- Callbacks of this context, which run while others wait, or are cut.
local called, expected = 0, 0

local function count(...)
    local ok, answer = context.query(echo, { select("#", ...), text = "c" })
    called = called + spin(5) / spin(5) + (ok and answer[1] == 2 and 0 or 1)
end

function plain.callbacks()
    expected = expected + 2
    context.run(count, 1, nil)
    timer.timeout(0, nil, 2, count)
    return 1
end

--- Waits for all callbacks; whether each was called once.
function M.all_called()
    while called < expected do
        timer.sleep(0.001)
    end
    return called == expected
end

return M
