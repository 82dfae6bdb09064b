-- A server that lives as long as its creator: echoes frames, and answers queries.

--- A function that ends the context if it fails: who waits for it is told.
local function guarded(f)
    return function(...)
        local done, why = pcall(f, ...)
        if not done then
            context.destroy()
            error(why, 0)
        end
    end
end

local ok, listener

local function serve(sock)
    sock:set_rwopt { read_head_bytes = 2, write_head_bytes = 2 }
    while true do
        local read, frame = sock:read()
        if not read then return end
        sock:write(frame)
    end
end

local function answer(_, question, from, session)
    if question == "port" then
        context.reply(from, session, ok and tcp.local_port(listener))
    else
        context.reply(from, session, question)
    end
end

local function accept(accepted, sock)
    if not accepted then return end
    local served, why = pcall(serve, sock)
    sock:close()
    if not served then error(why, 0) end
end

guarded(function()
    context.wait(context.parent(), function() context.destroy() end)
    ok, listener = tcp.listen("127.0.0.1", 0)
    context.recv(0, guarded(answer))
    if ok then listener:accept(guarded(accept)) end
end)()
