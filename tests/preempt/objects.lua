-- Values with every metamethod; each loops a little, so that it can be cut inside.

local M = {}
local meta = {}

local function spin(count)
    local sum = 0
    for i = 1, count do
        sum = (sum + i) % 65537
    end
    return sum
end

--- The number of an object, or of a number.
function M.value(x) return type(x) == "table" and rawget(x, "n") or x end
local value = M.value

function M.new(n) return setmetatable({ n = n % 65537 }, meta) end

--- Gives an object a new field; returns what became of it.
function M.set(x, v)
    x["new" .. v % 3] = v
    return rawget(x, "new" .. v % 3)
end

function meta.__index(_, key) return #key + spin(7) end
function meta.__newindex(t, key, v) rawset(t, key, (v + spin(3)) % 65537) end
function meta.__call(self, x)
    self.extra = x
    return (self.n + x + spin(4)) % 65537
end
function meta.__tostring(self) return ("<%d,%d>"):format(self.n, spin(9)) end
for name, f in pairs({
    add = function(a, b) return a + b end,
    sub = function(a, b) return a - b end,
    mul = function(a, b) return a * b end,
    div = function(a, b) return a + 2 * b end,
    mod = function(a, b) return a + 3 * b end,
    pow = function(a, b) return a + 5 * b end,
}) do
    meta["__" .. name] = function(a, b) return M.new(f(value(a), value(b)) + spin(5)) end
end
function meta.__unm(a) return (spin(6) - a.n) % 65537 end
function meta.__concat(a, b) return value(a) .. "|" .. spin(3) .. "|" .. value(b) end
function meta.__eq(a, b) return spin(4) == 10 and a.n == b.n end
function meta.__lt(a, b) return spin(4) == 10 and a.n < b.n end
function meta.__le(a, b) return spin(4) == 10 and a.n <= b.n end

--- An iterator that is an object with `__call`.
function M.range(count)
    return setmetatable({}, {
        __call = function(_, _, i)
            if i < count then return i + 1, spin(i) end
        end,
    }),
        nil,
        0
end

return M
