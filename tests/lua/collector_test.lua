-- The collector's settings, which the runtime adapts between turns unless a script sets them.

local tap = require("support.tap")
local is = tap.is

tap.test("the pause that a script sets stays", function()
    collectgarbage("setpause", 123)
    for _ = 1, 5 do
        timer.sleep(0.001)
    end
    is(collectgarbage("setpause", 123), 123, "after turns")
end)

tap.done()
