-- Makes programs: Lua source that follows from a seed. They compute with whole numbers below
-- 65,537, so that all of them, compiled or not, come to the same.
--
-- A program is a chunk that is called with `put`, which notes what it has seen, `tick`, which
-- raises when it has run long enough, `refuel`, `parts` (see parts.lua), `objects` (objects.lua).

local M = {}

--- Numbers from 1 to n, one after the other, exact in doubles.
function M.random(seed)
    local state = seed % 2147483646 + 1
    return function(n)
        state = state * 16807 % 2147483647
        return state % n + 1
    end
end

local FUNCTIONS, DEPTH_MAX, LOCALS_MAX = 8, 3, 12

-- A and B are objects, V is a variable.
local OBJECT_CALLS = {
    "objects.value(A + B)",
    "objects.value(A - 3)",
    "objects.value(7 * A)",
    "objects.value(A / B)",
    "objects.value(A % V)",
    "objects.value(V ^ A)",
    "(A == B and 1 or 2)",
    "(A < B and 3 or 4)",
    "(A >= B and 5 or 6)",
    "#(A .. B)",
    "#(V .. A .. 'x')",
    "(-A) % 65537",
    "A(V)",
    "A['key' .. V]",
    "#tostring(A)",
    "objects.set(A, V)",
}

local Maker = {}
Maker.__index = Maker

function Maker:add(text, ...) self.lines[#self.lines + 1] = text:format(...) end

function Maker:variable() return self.scope[self.random(#self.scope)] end

-- Runs `body` where new variables are seen by nobody else.
function Maker:block(body)
    local count = #self.scope
    body()
    for i = #self.scope, count + 1, -1 do
        self.scope[i] = nil
    end
end

function Maker:declare(value)
    self.names = self.names + 1
    local name = "v" .. self.names
    self:add("local %s = %s", name, value)
    self.scope[#self.scope + 1] = name
    return name
end

local function object(maker, depth) return ("objects.new(%s)"):format(maker:expression(depth)) end

local EXPRESSIONS = {
    function(m, d)
        local operator = ({ "+", "-", "*" })[m.random(3)]
        return ("(%s %s %s) %% 65537"):format(m:expression(d), operator, m:expression(d))
    end,
    function(m, d)
        local name = ({ "bxor", "band", "bor" })[m.random(3)]
        return ("bit.%s(%s, %s) %% 65537"):format(name, m:expression(d), m:expression(d))
    end,
    function(m, d) return ("t[(%s) %% 8 + 1]"):format(m:expression(d)) end,
    function(m, d)
        if m.current == 1 then return m:variable() end
        local called = m.random(m.current - 1)
        return ("(f[%d](%s, %s))"):format(called, m:expression(d), m:expression(d))
    end,
    function(m, d)
        return ("select('#', pass(%s, nil, pass(%s)))"):format(m:expression(d), m:expression(d))
    end,
    function(m, d)
        local a, b = m:expression(d), m:expression(d)
        return ("(%s < %s and %s or %s)"):format(a, b, m:expression(d), m:variable())
    end,
    function(m, d)
        local values = { A = object(m, d), B = object(m, d), V = m:variable() }
        return (OBJECT_CALLS[m.random(#OBJECT_CALLS)]:gsub("%f[%w][ABV]%f[%W]", values))
    end,
    function(m, d)
        return ("tonumber((%s) * 31LL %% 65537LL + %dLL)"):format(m:expression(d), m.random(9))
    end,
    function(m, d) return ("#(%s .. 'x'):rep(%d)"):format(m:expression(d), m.random(3)) end,
    function(m, d)
        local part = m.parts[m.random(#m.parts)]
        return ("parts.%s(%s)"):format(part, m:expression(d - 1))
    end,
}

function Maker:expression(depth)
    depth = (depth or DEPTH_MAX) - 1
    if depth < 0 or self.random(3) == 1 then
        return self.random(3) == 1 and tostring(self.random(65536)) or "(" .. self:variable() .. ")"
    end
    return "(" .. EXPRESSIONS[self.random(#EXPRESSIONS)](self, depth) .. ")"
end

local STATEMENTS
function Maker:statements(depth)
    for _ = 1, self.random(3) + 1 do
        STATEMENTS[self.random(depth > 0 and #STATEMENTS or 4)](self, depth - 1)
    end
end

function Maker:body(depth)
    self:block(function() self:statements(depth) end)
end

STATEMENTS = {
    -- Those that contain no others.
    function(m) m:add("put(%s)", m:expression()) end,
    function(m) m:add("%s = %s", m:variable(), m:expression()) end,
    function(m) m:add("t[%s %% 8 + 1] = %s", m:expression(), m:expression()) end,
    function(m)
        if #m.scope < LOCALS_MAX then return m:declare(m:expression()) end
        m:add("put(pass(%s, %s, nil))", m:expression(), m:expression())
    end,
    -- Those that do.
    function(m, d)
        m:add("if %s < %s then", m:expression(), m:expression())
        m:body(d)
        m:add("else")
        m:body(d)
        m:add("end")
    end,
    function(m, d)
        local from, step = m.random(9), ({ "", ", 3", ", -2" })[m.random(3)]
        local to = from + (step == ", -2" and -m.random(20) or m.random(20))
        m:block(function()
            m:add("for i = %d, %d%s do tick()", from, to, step)
            m:declare("i % 65537")
            m:statements(d)
            m:add("end")
        end)
    end,
    function(m, d)
        m:block(function()
            local count = m:declare(m.random(20))
            m:add("while %s > 0 do tick() %s = math.min(%s, 20) - 1", count, count, count)
            m:body(d)
            m:add("end")
        end)
    end,
    function(m, d)
        m:block(function()
            local count = m:declare(0)
            m:add("repeat tick() %s = %s + 1", count, count)
            m:body(d)
            m:add("until %s %% 65537 > %d", count, m.random(12))
        end)
    end,
    function(m, d)
        m.names = m.names + 1
        local label = "again" .. m.names
        m:add("do local n = 0 ::%s:: tick() n = n + 1 do", label)
        m:body(d)
        m:add("end if n < %d then goto %s end end", m.random(6), label)
    end,
    -- A closure over the variables around it, called while they are open, and afterwards.
    function(m, d)
        m:add("do local g")
        m:block(function()
            m:declare(m:expression())
            m:add("g = function(a, ...) tick()")
            m:block(function()
                m:declare("(a or 1) % 65537")
                m:statements(d)
                m:add("return %s, ...", m:expression())
            end)
            m:add("end put(g(%s, %s))", m:expression(), m:variable())
        end)
        m:add("keep(g) put(g(%d)) end", m.random(99))
    end,
    function(m, d)
        m:add("put(pcall(function() tick()")
        m:body(d)
        m:add("if %s %% 2 == 0 then error(%s, 0) end", m:variable(), m:expression())
        m:add("return %s end))", m:expression())
    end,
    function(m, d)
        m:add("put(xpcall(function(...) tick()")
        m:body(d)
        m:add("local none = nil return %s %% 2 == 0 and none.x or ... end, ", m:variable())
        m:add("function(why) local s = 0 for i = 1, 9 do s = s + i end")
        m:add("return type(why), s end, 7))")
    end,
    -- A generator, which ends early at times.
    function(m, d)
        m:add("for a, b in coroutine.wrap(function() for i = 1, %d do tick()", m.random(9))
        m:body(d)
        m:add("coroutine.yield(i, %s) end end) do put(a, b)", m:expression())
        m:add("if b %% 7 == 6 then break end end")
    end,
    -- A coroutine with values, without, with nil, and an error at the end.
    function(m, d)
        m:add("do local co = coroutine.create(function(a, ...) tick() put(a, ...)")
        m:body(d)
        m:add("put(coroutine.yield(%s)) put(coroutine.yield())", m:expression())
        m:add("put(coroutine.yield(nil, %s)) put(pcall(coroutine.yield, 1))", m:variable())
        m:body(d)
        m:add("if %s %% 2 == 0 then error(%s, 0) end", m:variable(), m:variable())
        m:add("end) for i = 1, 6 do tick()")
        m:add("put(coroutine.status(co), coroutine.resume(co, i, nil)) end end")
    end,
    function(m, d)
        m:add("for k, v in pairs({ %s, %s, 3 }) do tick()", m:expression(), m:expression())
        m:block(function()
            m:declare("(k + v) % 65537")
            m:statements(d)
        end)
        m:add("end")
    end,
    function(m, d)
        m:add("for i, v in objects.range(%d) do tick()", m.random(9))
        m:block(function()
            m:declare("(i + v) % 65537")
            m:statements(d)
        end)
        m:add("end")
    end,
}

--- The source of the program of this seed, with calls of the functions named in `parts`.
function M.source(seed, parts)
    local maker = setmetatable({
        random = M.random(seed),
        parts = parts,
        lines = {},
        scope = {},
        names = 0,
    }, Maker)
    maker:add("local put, tick, refuel, parts, objects = ...")
    maker:add("local t, f, kept = { 1, 2, 3, 4, 5, 6, 7, 8 }, {}, {}")
    maker:add("local function pass(...) return ... end")
    maker:add("local function keep(g) kept[#kept %% 9 + 1] = g end")
    for i = 1, FUNCTIONS do
        maker.current, maker.scope = i, { "a", "b" }
        maker:add("f[%d] = function(a, b, ...) tick()", i)
        maker:body(DEPTH_MAX)
        local last = maker:expression()
        if i > 1 and maker.random(3) == 1 then
            maker:add("return f[%d](%s, b, ...) end", i - 1, last)
        else
            maker:add("return %s, b, ... end", last)
        end
    end
    maker:add("for i = 1, 3 do for k = 1, #f do refuel() put(pcall(f[k], i, k)) end end")
    maker:add("for i = 1, #kept do refuel() put(pcall(kept[i], i)) end")
    return table.concat(maker.lines, "\n")
end

return M
