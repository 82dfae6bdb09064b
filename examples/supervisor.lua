-- Keeps workers running.
--
-- Shows: contexts that are started again when they fail, by a supervisor.
-- Run: node-lua examples/supervisor.lua
-- Expected output:
--   first did this
--   2 ended: error
--   second did that
--   too many restarts: intensity

local supervisor = require "supervisor"

local here = arg[0]:match("^(.*)/") or "."
local restarted

local s
s = supervisor.start {
    { here .. "/worker.lua", "first" },
    { here .. "/worker.lua", "second" },
    strategy = "one_for_one",
    intensity = 1, -- restarts within …
    period = 5, -- … so many seconds
    on_exit = function(index, reason)
        if not restarted then
            restarted = true
            print(index .. " ended: " .. reason)
        end
    end,
    on_finish = function(reason) print("too many restarts: " .. reason) end,
}

print(select(2, context.query(s:handle(1), "this")))

local failing = s:handle(2)
context.query(failing, "fail", function() end)
context.wait(failing)
while not s:handle(2) or s:handle(2) == failing do
    timer.sleep(0.001)
end
print(select(2, context.query(s:handle(2), "that")))

context.send(s:handle(1), "fail")
