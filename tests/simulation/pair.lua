-- A server and its client, each a script that is given a port, in one simulation.

if not arg then
    local script, port = ...
    -- The scripts are main scripts otherwise, and find their files from here.
    rawset(_G, "arg", { [0] = script, port })
    return assert(loadfile(script))(port)
end

local server, client = ...
local handle = context.create(arg[0], server, "7000")
-- The server has said that it listens by now: nothing takes that long.
timer.sleep(1)
local good
local worker = context.create(arg[0], client, "7000")
context.monitor(worker, function(_, reason) good = reason == "normal" end)
context.wait(worker)
while good == nil do
    timer.sleep(1)
end
context.destroy(handle)
if not good then error("the client fails") end
