--- Sockets of this machine, for tests.

local M = { HOST = "127.0.0.1" }

--- A listen socket, and its port; arguments are those of `tcp.listen` after the port.
function M.listen(...)
    local good, listener = tcp.listen(M.HOST, 0, ...)
    assert(good, listener)
    return listener, tcp.local_port(listener)
end

--- A connection: the accepting and the connecting side.
function M.pair()
    local listener, port = M.listen()
    local good, client = tcp.connect(M.HOST, port, 30)
    assert(good, client)
    local accepted, server = listener:accept(30)
    assert(accepted, server)
    listener:close()
    return server, client
end

--- The text of the next frame, or the code.
function M.read(sock)
    local good, data = sock:read(30)
    return good and data:tostring() or data
end

return M
