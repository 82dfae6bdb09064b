-- Connections that go on in another protocol: how a WebSocket takes one over.

local native, core = ...

local bad = core.bad
local requests, sockets = core.http_requests, core.sockets

-- Answers 101 with these lines of a head, each of which ends with "\r\n": true and a tcp socket; or
-- false, a code, and a text if there is more to say. The request is over then, whatever its handler
-- returns.
return function(req, res, name, head)
    if not requests or not requests.id_of(req) then bad(1, name, "request", req) end
    if not requests.is_response(res, req) then bad(2, name, "the answer of that request", res) end
    requests.keep(req)
    local key, number, why = native.http_upgrade(requests.id_of(req), head)
    if not key then return false, number, why end
    requests.forget(req)
    return true, sockets.new_stream(key, requests.path_of(number))
end
