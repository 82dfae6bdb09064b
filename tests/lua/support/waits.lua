-- A module that waits while it is being loaded, in two coroutines of its own.
local steps = coroutine.wrap(function()
    timer.sleep(0.001)
    coroutine.yield("first")
    timer.sleep(0.001)
    coroutine.yield("second")
end)

local name = ...
return { name = name, steps = { steps(), steps() } }
