-- Creation: node-lua create.lua DIR COUNT
-- Each context runs its script, reports, and waits for a message.
local dir, count = ...
local bench

if count == "child" then
    context.recv(0, function() end)
    context.send(context.parent(), true)
    return
end
bench = dofile(dir .. "/clock.lua")
count = tonumber(count)
local all = {}
local wall = bench.measured(timer.sleep, function()
    for i = 1, count do
        all[i] = context.create(dir .. "/create.lua", dir, "child")
    end
    for _ = 1, count do
        context.recv(0)
    end
end)
bench.say("metric wall_ms", wall * 1000)
for i = 1, count do
    context.destroy(all[i])
end
