-- Queries to another process: node-lua --cluster URL cluster_ask.lua COUNT IN_FLIGHT
-- The other one: node-lua --cluster URL cluster_ask.lua serve
local count, flight = ...

if count == "serve" then
    context.register("bench")
    context.recv(0, function(_, value, from, session) context.reply(from, session, value) end)
    print("ready")
    return
end

count, flight = tonumber(count), tonumber(flight)
while not context.find("bench") do
    timer.sleep(0.01)
end
local each, left, times, began = math.floor(count / flight), flight, {}, timer.now()

local function ask()
    for _ = 1, each do
        local at = timer.now()
        context.check(context.query("bench", "12345678901234567890", 10))
        times[#times + 1] = (timer.now() - at) * 1e6
    end
    left = left - 1
    if left > 0 then return end
    local took = timer.now() - began
    table.sort(times)
    local text = "%d in flight: %.0f/s, p50 %.1f us, p99 %.1f us"
    local middle, last = times[math.ceil(#times / 2)], times[math.ceil(#times * 0.99)]
    print(text:format(flight, #times / took, middle, last))
end

for _ = 1, flight do
    context.run(ask)
end
