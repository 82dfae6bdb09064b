-- RPC between contexts: calls spread over a pool of workers.
--
-- Shows: tables as messages, many queries under way at once, errors that come back to the caller,
-- a time limit. Worker by worker runs on whatever core has time.
-- Run: node-lua examples/rpc_pool.lua [workers]
-- Expected output:
--   add(2, 3) = 5
--   upper("quiet") = QUIET
--   the sum of 100 squares is 338350
--   answers by worker: 26 26 26 26
--   worker says: no such method: fly
--   worker says: cannot add a number and a string
--   too slow: timeout

local size = tonumber((...) or 4)
local here = arg[0]:match("^(.*)/") or "."

local workers, answers = {}, {}
for i = 1, size do
    workers[i] = context.create(here .. "/rpc_worker.lua")
    answers[i] = 0
end

local turn = 0

-- Calls a method of the next worker; returns its result, or nil and a message.
local function call(timeout, method, ...)
    turn = turn % size + 1
    local i = turn
    local ok, answer = context.query(workers[i], { method = method, ... }, timeout)
    if not ok then return nil, context.strerror(answer) end
    answers[i] = answers[i] + 1
    return answer.result, answer.error
end

print(("add(2, 3) = %d"):format(call(5, "add", 2, 3)))
print(('upper("quiet") = %s'):format(call(5, "upper", "quiet")))

-- A hundred calls at once: each waits in a coroutine of its own.
local sum, left = 0, 100
for i = 1, 100 do
    context.run(function()
        -- Not `sum = sum + call(…)`: that reads `sum` before it waits, and writes after it.
        local square = call(5, "multiply", i, i)
        sum = sum + square
        left = left - 1
        if left == 0 then context.send(context.self(), "all squares are there") end
    end)
end
context.recv(context.self())
print(("the sum of 100 squares is %d"):format(sum))

-- Evenly spread: two more, so that every worker has had as many.
call(5, "add", 1, 1)
call(5, "add", 1, 1)
print("answers by worker: " .. table.concat(answers, " "))

local _, message = call(5, "fly")
print("worker says: " .. message)
_, message = call(5, "add", 1, "one")
print("worker says: " .. message)
_, message = call(0.05, "sleep", 30)
print("too slow: " .. message)

for _, worker in ipairs(workers) do
    context.destroy(worker)
end
