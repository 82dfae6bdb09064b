-- Publications of 1 KiB to subscribers in other processes:
--   node-lua --cluster URL cluster_broadcast.lua listen COUNT SUBSCRIBERS     (some of these)
--   node-lua --cluster URL cluster_broadcast.lua send COUNT NODES
local what, count, number = ...
count, number = tonumber(count), tonumber(number)

if what == "subscriber" then
    local left = count
    context.subscribe("bench.all", function()
        left = left - 1
        if left > 0 then return end
        context.send(context.parent(), "done")
        context.unsubscribe("bench.all")
    end)
    context.send(context.parent(), "ready")
elseif what == "listen" then
    for _ = 1, number do
        context.create(arg[0], "subscriber", count)
    end
    for _ = 1, number do
        context.recv(0)
    end
    context.register("listener", { shared = true })
    context.register("listener." .. context.node())
    for _ = 1, number do
        context.recv(0)
    end
    context.send("sender", "done")
    timer.sleep(0.5)
else
    context.register("sender")
    local ready
    repeat
        timer.sleep(0.05)
        ready = 0
        for _, node in ipairs(context.nodes()) do
            if context.find("listener." .. node) then ready = ready + 1 end
        end
    until ready == number
    local value, began = buffer.new(("x"):rep(1024)), timer.now()
    for i = 1, count do
        while not context.publish("bench.all", value) do
            timer.sleep(0.001)
        end
        -- Not more than the server keeps for one process.
        if i % 1000 == 0 then timer.sleep(0.001) end
    end
    for _ = 1, number do
        context.recv(0)
    end
    local took = timer.now() - began
    local text = "%.0f publications/s, %.1f MB/s to processes"
    print(text:format(count / took, count * number * 1024 / took / 1e6))
end
