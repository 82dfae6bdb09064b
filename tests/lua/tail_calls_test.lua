-- A function that ends with a call of the library is not on the stack any more when that raises.
-- The message names the line of who called it, as LuaJIT's functions do; of a callback, which
-- nobody has called, the line on which it begins.

local tap = require("support.tap")
local is = tap.is

local FILE = arg[0]
local logged = {}
context.on_error(function(message) logged[#logged + 1] = message end)

local function line() return debug.getinfo(2, "l").currentline end

local function told()
    while not logged[1] do
        timer.sleep(0.001)
    end
    return table.remove(logged, 1)
end

local WRONG = ": bad argument #1 to 'sleep' (number of seconds expected, got string \"x\")"

tap.test("functions of the script's", function()
    local function tail() return timer.sleep("x") end
    local at = line() + 1
    local _, why = pcall(function() tail() end)
    is(why, FILE .. ":" .. at .. WRONG, "who has called it")
end)

tap.test("functions that the library calls", function()
    local function callback() return timer.sleep("x") end
    timer.timeout(0, callback)
    is(told(), FILE .. ":" .. debug.getinfo(callback, "S").linedefined .. WRONG, "a timer's")
end)

tap.done()
