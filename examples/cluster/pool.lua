-- A pool of workers that grows while work is under way: start more processes, at any time.
--
-- Shows: a name that many answer under; work that is asked for again when its worker is gone.
-- Run: nats-server &
--      node-lua --cluster nats://127.0.0.1:4222 --node w1 examples/cluster/pool.lua worker
--      node-lua --cluster nats://127.0.0.1:4222 --node boss examples/cluster/pool.lua
--      node-lua --cluster nats://127.0.0.1:4222 --node w2 examples/cluster/pool.lua worker
--      and so on; kill some.
-- Expected output:
--   30 pieces of work, none lost

local what, count = ...

if what == "worker" then
    context.register("worker", { shared = true })
    context.recv(0, function(_, number, from, session)
        timer.sleep(0.05) -- as if it were work
        context.reply(from, session, { number * number, context.node() })
    end)
    print("ready")
    return
end

count = tonumber(count) or 30
local left, by = count, {}

-- Asks until somebody has done it. What was asked may have been done although its worker is gone:
-- such work must be of the kind that may be done twice.
local function work(number)
    local ok, answer
    repeat
        ok, answer = context.query("worker", number, 5)
        if not ok then timer.sleep(0.1) end
    until ok
    assert(answer[1] == number * number)
    by[answer[2]] = (by[answer[2]] or 0) + 1
    left = left - 1
    if left > 0 then return end
    for name, done in pairs(by) do
        io.stderr:write(name, " has done ", done, "\n")
    end
    print(count .. " pieces of work, none lost")
end

for number = 1, count do
    context.run(work, number)
end
