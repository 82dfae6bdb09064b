-- A chat over several processes: who is where does not matter to anybody.
--
-- Shows: topics over processes, names of those who are there, and who has gone, in whatever way.
-- Run: nats-server &
--      node-lua --cluster nats://127.0.0.1:4222 --node ann examples/cluster/chat.lua
--      node-lua --cluster nats://127.0.0.1:4222 --node bob examples/cluster/chat.lua
--      and so on. Each line of standard input is said to all; its end, or Ctrl-C, leaves.
-- Expected output, of each:
--   ann is here
--   bob is here
--   ann: hello, bob
--   bob is gone

local me = context.node()
context.register("chat." .. me)

local known = {}

-- Greets who is new, and waits for his end.
local function meet(name)
    if known[name] then return end
    known[name] = true
    print(name .. " is here")
    if name == me then return end
    local watched = context.monitor("chat." .. name, function()
        known[name] = nil
        print(name .. " is gone")
    end)
    -- Here and gone again before that.
    if not watched then known[name] = nil end
end

context.subscribe("chat.here", function(name)
    -- Who comes is told who is here.
    if not known[name] then context.publish("chat.here", me) end
    meet(name)
end)
context.subscribe("chat.said", function(said)
    meet(said.name)
    print(said.name .. ": " .. said.text)
end)
meet(me)
context.publish("chat.here", me)

-- Reading lines waits, and so has a context of its own.
local here = arg[0]:match("^(.*)/") or "."
context.create(here .. "/lines.lua")
context.recv(0, function(_, line)
    if not line then return context.exit(0) end
    context.publish("chat.said", { name = me, text = line })
end)
