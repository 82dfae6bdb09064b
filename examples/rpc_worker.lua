-- RPC worker: answers calls of its methods. Started by rpc_pool.lua and rpc_server.lua.
--
-- Shows: one callback that serves queries, and may wait in the middle of one: the next query is
-- served meanwhile.

local methods = {}

function methods.add(a, b)
    if type(a) ~= type(b) then error(("cannot add a %s and a %s"):format(type(a), type(b)), 0) end
    return a + b
end

function methods.multiply(a, b) return a * b end

function methods.upper(text) return text:upper() end

function methods.sleep(seconds)
    timer.sleep(seconds)
    return seconds
end

context.recv(0, function(_, request, from, session)
    local method = methods[request.method]
    if not method then
        context.reply(from, session, { error = "no such method: " .. tostring(request.method) })
        return
    end
    local ok, result = pcall(method, unpack(request))
    context.reply(from, session, ok and { result = result } or { error = tostring(result) })
end)
