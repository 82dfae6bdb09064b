-- RPC client: calls methods of the RPC server, many at once over one connection.
--
-- Shows: a context that owns a connection (rpc_connection.lua). To its callers a call over the
-- network looks like a query of any other context.
-- Run: node-lua examples/rpc_client.lua [port [host]]     (start rpc_server.lua first)
-- Expected output:
--   add(2, 3) = 5
--   upper("over the wire") = OVER THE WIRE
--   the short sleep answers before the long one
--   the sum of 100 squares is 338350
--   server says: no such method: fly

local port, host = ...
port, host = tonumber(port or 7102), host or "127.0.0.1"

local here = arg[0]:match("^(.*)/") or "."

local connection = context.create(here .. "/rpc_connection.lua", port, host)

local function call(method, ...)
    local ok, answer = context.query(connection, { method = method, ... }, 10)
    if not ok then return nil, context.strerror(answer) end
    return answer.result, answer.error
end

local function check(result, message) return result or error(message, 0) end

print(("add(2, 3) = %d"):format(check(call("add", 2, 3))))
print(('upper("over the wire") = %s'):format(check(call("upper", "over the wire"))))

-- Runs every function in a coroutine of its own and waits for all of them.
local function all(functions)
    local left = #functions
    for _, f in ipairs(functions) do
        context.run(function()
            f()
            left = left - 1
            if left == 0 then context.send(context.self(), "done") end
        end)
    end
    context.recv(context.self())
end

local order = {}
all({
    function()
        check(call("sleep", 0.5))
        order[#order + 1] = "long"
    end,
    function()
        check(call("sleep", 0.01))
        order[#order + 1] = "short"
    end,
})
print(("the %s sleep answers before the %s one"):format(order[1], order[2]))

local sum, squares = 0, {}
for i = 1, 100 do
    squares[i] = function()
        local square = check(call("multiply", i, i))
        sum = sum + square
    end
end
all(squares)
print(("the sum of 100 squares is %d"):format(sum))

local _, message = call("fly")
print("server says: " .. message)

context.destroy(connection)
