-- Endless loops beside an echo server: node-lua loops.lua DIR PORT COUNT
-- Prints `ready` once the loops are created; they begin while the probes run. On the connection,
-- `x` comes back; `s` begins to count the CPU time of the loops, `e` prints the figures. Meanwhile
-- a context is created every 50 ms, which tells when it runs.
local dir, port, count = ...
local bench = dofile(dir .. "/clock.lua")

if port == "loop" then
    while true do
    end
elseif port == "new" then
    context.send(context.parent(), bench.now())
    return
end

local loops, late, before = {}, {}, nil
for i = 1, tonumber(count) do
    loops[i] = context.create(dir .. "/loops.lua", dir, "loop")
    -- A turn as long as a thousand creations would get no more than a loop's share.
    if i % 8 == 0 then timer.sleep(0) end
end

local function create()
    local began = bench.now()
    context.recv(
        context.create(dir .. "/loops.lua", dir, "new"),
        function(_, at) late[#late + 1] = at - began end
    )
end

local function seconds()
    local all = {}
    for i, handle in ipairs(loops) do
        all[i] = context.stat(handle).cpu
    end
    return all
end

local function report()
    table.sort(late)
    bench.say("metric created", #late)
    if #late > 0 then
        bench.say("metric created_p50_ms", late[math.ceil(#late / 2)] * 1000)
        bench.say("metric created_most_ms", late[#late] * 1000)
    end
    if #loops == 0 then return end
    local sum, least, most = 0, math.huge, 0
    for i, cpu in ipairs(seconds()) do
        local used = cpu - before[i]
        sum, least, most = sum + used, math.min(least, used), math.max(most, used)
    end
    bench.say("metric least_share", least * #loops / sum)
    bench.say("metric most_share", most * #loops / sum)
end

local listening, lsock = tcp.listen("127.0.0.1", tonumber(port))
assert(listening, lsock)
lsock:accept(function(_, sock)
    sock:set_nodelay(true)
    sock:read(function(ok, data)
        if not ok then return sock:close() end
        local order = data:tostring()
        if order == "s" then
            before = seconds()
        elseif order == "e" then
            report()
            bench.say("end")
        else
            sock:write(data)
        end
    end)
end)
timer.loop(0.05, 0.05, create)
bench.say("ready")
