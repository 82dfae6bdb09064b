-- Candidates look whether there is a leader; who finds none gets ready and claims the name. As long
-- as nothing comes in between, one claims it. But contexts run side by side, and another one may
-- claim it meanwhile: in a simulation only a cut turn shows that.

if ... == "candidate" then
    if not context.find("leader") then
        local sum = 0
        for i = 1, 300 do
            sum = sum + i * i
        end
        assert(sum == 9045050)
        context.check(context.register("leader"))
    end
    return context.recv(0)
end

local reasons = {}
for i = 1, 3 do
    local candidate = context.create("leader.lua", "candidate")
    context.monitor(candidate, function(_, reason) reasons[i] = reason end)
    timer.timeout(1, function() context.destroy(candidate) end)
end
timer.sleep(2)
assert(table.concat(reasons, " ") == "killed killed killed")
