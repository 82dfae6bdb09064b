-- tcp.accept: who wants to get the connections of a listen socket. Loaded with the first of them.

local native, core, sockets = ...

local select, type = select, type
local bad, bad_because, timeout_of = core.bad, native.bad_because, core.timeout_of
local call_guarded, complete = core.call_guarded, core.complete
local defer, resume_waiter = core.defer, core.resume_waiter
local check_may_wait, wait_on = core.check_may_wait, sockets.wait_on
local paths, is_shortage = sockets.paths, sockets.is_shortage
local check_listener, check_open = sockets.check_listener, sockets.check_open
local next_waiter, take_waiter = sockets.next_waiter, sockets.take_waiter
local new_stream, release_anchor = sockets.new_stream, sockets.release_anchor
local set_callback = sockets.set_callback

local LISTENER_CLOSED, TIMEOUT = 204, 208

-- Gives connections to who waits for them, as far as there are some.
local function serve_listener(record)
    local has_collected = false
    while not record.closed do
        local waits = record.waiter
        local token = not waits and next_waiter(record)
        if not waits and not token and not record.callback then return release_anchor(record) end
        local id, code = native.accept(record.id)
        if not id and code == nil then return end
        if not id then
            if is_shortage(code) then
                local shortage = sockets.get_shortage()
                if shortage.hold_up(serve_listener, record, has_collected) then return end
                has_collected = true
            end
        -- Anything else concerns that one connection, which is gone: the next is waited for.
        elseif waits then
            resume_waiter(record, true, new_stream(id, paths[record]))
        elseif token then
            take_waiter(record)
            complete(token, true, new_stream(id, paths[record]))
        else
            local socket = new_stream(id, paths[record])
            call_guarded(socket, record.callback, true, socket, record.anchor)
        end
    end
end

return function(socket, ...)
    local record = check_listener(socket, "accept")
    check_open(record, LISTENER_CLOSED, "accept")
    if record.server then
        bad_because(1, "accept", "a server of http.serve takes the connections of this one")
    end
    record.serve = serve_listener
    local timeout = 0
    if select("#", ...) > 0 then
        local how, more = ...
        if select("#", ...) > 1 then bad(3, "accept", nil, more) end
        if type(how) == "function" then return set_callback(socket, record, how, serve_listener) end
        timeout = timeout_of(how, 2, "accept")
        if timeout < 0 then return false, TIMEOUT end
    end
    if not record.waiter and not next_waiter(record) then
        local id, code = native.accept(record.id)
        if id then return true, new_stream(id, paths[record]) end
        if code ~= nil then defer(serve_listener, record) end
    end
    check_may_wait()
    return wait_on(socket, record, timeout)
end
