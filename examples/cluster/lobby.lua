-- A lobby that opens each new room of a game on the process with the most room.
--
-- Shows: asking each process by its name; contexts created elsewhere on request; rooms by name.
-- Run: nats-server &
--      node-lua --cluster nats://127.0.0.1:4222 --node h1 examples/cluster/lobby.lua host 2
--      node-lua --cluster nats://127.0.0.1:4222 --node h2 examples/cluster/lobby.lua host 4
--      node-lua --cluster nats://127.0.0.1:4222 --node lobby examples/cluster/lobby.lua
-- Expected output:
--   room 1 is on h2
--   room 2 is on h2
--   room 3 is on h1
--   room 4 is on h2
--   room 5 is on h1
--   room 6 is on h2
--   room 7: no process has room for it
--   room 3 has 2 players: ann bob

local what, most = ...
local here = arg[0]:match("^(.*)/") or "."

if what == "host" then
    local room = tonumber(most) or 10
    context.register("host." .. context.node())
    context.recv(0, function(_, wanted, from, session)
        if wanted == "room?" then return context.reply(from, session, room) end
        if room == 0 then return context.reply(from, session, false) end
        room = room - 1
        local handle = context.create(here .. "/room.lua", wanted)
        context.monitor(handle, function() room = room + 1 end)
        -- It answers once it has its name.
        context.reply(from, session, (context.query(handle, "ready?", 5)))
    end)
    print("ready")
    return
end

-- The process that has the most room, and has answered.
local function find_host()
    local best, free
    for _, node in ipairs(context.nodes()) do
        local ok, room = context.query("host." .. node, "room?", 2)
        if ok and room > (free or 0) then
            best, free = node, room
        end
    end
    return best
end

for number = 1, 7 do
    local name, host = "room " .. number, find_host()
    if host and context.check(context.query("host." .. host, name, 5)) then
        print(name .. " is on " .. host)
    else
        print(name .. ": no process has room for it")
    end
end

-- Whoever wants to play needs the name alone.
for _, player in ipairs({ "ann", "bob" }) do
    context.check(context.send("room 3", player))
end
print("room 3 has " .. context.check(context.query("room 3", "who?", 5)))
