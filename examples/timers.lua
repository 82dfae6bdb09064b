-- Timers: waiting, doing something later, doing it again and again.
--
-- Shows: timer.sleep, timeout, loop and close. The script ends by itself once no timer is left.
-- Run: node-lua examples/timers.lua
-- Expected output:
--   the main chunk goes on at once
--   tick 1
--   tick 2
--   tick 3
--   slept while others ran
--   arguments are handed on: a nil c

timer.timeout(
    1,
    "a",
    nil,
    "c",
    function(a, b, c) print(("arguments are handed on: %s %s %s"):format(a, tostring(b), c)) end
)

local ticks, loop = 0, nil
loop = timer.loop(0.05, 0.05, function()
    ticks = ticks + 1
    print("tick " .. ticks)
    if ticks == 3 then timer.close(loop) end
end)

local never = timer.timeout(3600, function() print("this is never printed") end)

print("the main chunk goes on at once")
timer.sleep(0.8)
print("slept while others ran")
timer.close(never)
