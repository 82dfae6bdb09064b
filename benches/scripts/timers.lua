-- Timers: node-lua timers.lua DIR COUNT
local dir, count = ...
local bench = dofile(dir .. "/clock.lua")
local now = bench.now
count = tonumber(count)
local errors, self = {}, context.self()

bench.measured(timer.sleep, function()
    local random = 1
    for _ = 1, count do
        random = random * 16807 % 2147483647
        local s = (500 + random % 2500) / 1000
        local due = now() + s
        timer.timeout(s, function()
            errors[#errors + 1] = now() - due
            if #errors == count then context.send(self, true) end
        end)
    end
    context.recv(self)
end)
local early = 0
for i = 1, count do
    early = early + (errors[i] < 0 and 1 or 0)
    errors[i] = math.abs(errors[i])
end
table.sort(errors)
bench.say("metric error_p50_ms", errors[math.ceil(count / 2)] * 1000)
bench.say("metric error_p99_ms", errors[math.ceil(count * 0.99)] * 1000)
bench.say("metric early", early)
