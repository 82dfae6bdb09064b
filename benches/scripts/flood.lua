-- One-way messages: node-lua flood.lua DIR PRODUCERS PAYLOAD COUNT
local dir, a, payload, count, consumer = ...
local bench = dofile(dir .. "/clock.lua")
local file = dir .. "/flood.lua"

if a == "producer" then
    local parent = context.parent()
    local value = bench.payload(payload)
    context.send(parent, "up")
    context.recv(parent)
    local send = context.send
    for _ = 1, count do
        local ok, code = send(consumer, value)
        while not ok do
            assert(code == 209, code)
            timer.sleep(0.001)
            ok, code = send(consumer, value)
        end
    end
    return
elseif a == "consumer" then
    local parent, left = context.parent(), count
    local recv = context.recv
    context.send(parent, "up")
    while left > 0 do
        local _, value = recv(0)
        left = left - 1
        if left == 0 then bench.check(payload, value) end
    end
    context.send(parent, "done")
    return
end

local producers = tonumber(a)
count = tonumber(count)
local target = context.create(file, dir, "consumer", payload, producers * count)
context.recv(target)
local all = {}
for i = 1, producers do
    all[i] = context.create(file, dir, "producer", payload, count, target)
    context.recv(all[i])
end
local wall = bench.measured(timer.sleep, function()
    for i = 1, producers do
        context.send(all[i], "go")
    end
    context.recv(target)
end)
bench.say("metric messages_per_s", producers * count / wall)
