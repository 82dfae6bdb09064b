-- Waits for what never comes, until it is ended.

local main, operation, form = ...
local HOST = "127.0.0.1"

local listener, sock, other, port
if operation ~= "query" then
    listener = select(2, tcp.listen(HOST, 0, 1))
    port = tcp.local_port(listener)
end
if operation ~= "accept" and port then
    sock = select(2, tcp.connect(HOST, port))
    if operation ~= "connect" then
        other = select(2, listener:accept())
    else
        -- As many as may wait, and one that is accepted by nobody.
        other = select(2, tcp.connect(HOST, port))
    end
end

local callback = form == "callback" and function() end or nil
local function call(f, ...)
    if not callback then return f(...) end
    local arguments = { ... }
    arguments[#arguments + 1] = callback
    return f(unpack(arguments))
end

-- On the next turn, when it waits.
context.run(context.send, main, "kill me")
if operation == "query" then
    context.recv(main, function() end)
    call(context.query, context.self(), "nobody answers")
elseif operation == "wait" then
    call(context.wait, main)
elseif operation == "recv" then
    call(context.recv, main)
elseif operation == "accept" then
    call(tcp.accept, listener)
elseif operation == "read" then
    call(tcp.read, sock)
elseif operation == "connect" then
    call(tcp.connect, HOST, port)
elseif operation == "write" then
    tcp.write(sock, ("x"):rep(2 ^ 24), callback or true)
else
    timer.sleep(3600)
end
return other
