-- Round trips: node-lua query.lua DIR PAIRS PAYLOAD COUNT PLACE
-- PLACE "any" lets the scheduler choose; "apart" puts a pair's sides onto workers 0 and 1.
local dir, a, payload, count, place = ...
local bench = dofile(dir .. "/clock.lua")
local file = dir .. "/query.lua"

if a == "server" then
    context.recv(0, function(_, value, from, session) context.reply(from, session, value) end)
    return
elseif a == "client" then
    local server, parent = place, context.parent()
    local value = bench.payload(payload)
    local function ask(n)
        for _ = 1, n do
            local ok, answer = context.query(server, value)
            assert(ok, answer)
        end
    end
    ask(math.min(count, 2000))
    local _, answer = context.query(server, value)
    bench.check(payload, answer)
    context.send(parent, "up")
    context.recv(parent)
    ask(count)
    context.send(parent, "done")
    return
end

local pairs_count = tonumber(a)
count = tonumber(count)
local side = place == "apart" and { 0, 1 } or { "any", "any" }
local clients, all = {}, {}
for i = 1, pairs_count do
    local server = bench.create(side[1], file, dir, "server")
    clients[i] = bench.create(side[2], file, dir, "client", payload, count, server)
    all[#all + 1] = server
end
local function everybody(word)
    for _ = 1, pairs_count do
        local _, said = context.recv(0)
        assert(said == word, said)
    end
end
everybody("up")
local wall = bench.measured(timer.sleep, function()
    for i = 1, pairs_count do
        context.send(clients[i], "go")
    end
    everybody("done")
end)
bench.say("metric forced", place == "apart" and 1 or 0)
bench.say("metric us_per_query", wall * 1e6 / (pairs_count * count))
for _, server in ipairs(all) do
    context.destroy(server)
end
