-- The methods of sockets, each of one kind, and their text.

local native, core, sockets, tcp = ...

local error, ipairs, next = error, ipairs, next
local find, format = string.find, string.format
local bad, strerror = core.bad, native.strerror
local streams, listeners = sockets.streams, sockets.listeners
local paths, ends_of = sockets.paths, sockets.ends_of

local END_OF_FILE = 1

-- A function for both kinds as the method of one.
local function method(registry, name)
    local f = tcp[name]
    return function(socket)
        if registry[socket] == nil then
            if streams[socket] == nil and listeners[socket] == nil then
                bad(1, name, "tcp socket", socket, 3)
            end
            local expected, got = "connected", "listening"
            if registry == listeners then
                expected, got = got, expected
            end
            error(
                format(
                    "bad argument #1 to '%s' (%s socket expected, got a %s one: tcp.%s takes both)",
                    name,
                    expected,
                    got,
                    name
                ),
                2
            )
        end
        return f(socket)
    end
end

local stream_methods, listener_methods = {}, {}
-- Those for the other kind are there too, and say so.
for name, f in next, tcp do
    if not find(name, "^listen") and not find(name, "^connect") and name ~= "fd_src" then
        stream_methods[name], listener_methods[name] = f, f
    end
end
for _, name in ipairs({ "close", "is_closed", "stat", "local_addr", "local_port" }) do
    stream_methods[name], listener_methods[name] = method(streams, name), method(listeners, name)
end

-- How a connection stands.
local function state_of(id)
    local failed, ended = native.socket_state(id)
    if failed then return "failed (" .. strerror(failed) .. ")" end
    if ended == END_OF_FILE then return "ended by its peer" end
    if ended then return "failed (" .. strerror(ended) .. ")" end
    return "open"
end

-- Kind, address in memory, addresses and state.
local function describe(socket)
    local record = streams[socket] or listeners[socket]
    if record == nil then return "tcp socket" end
    local is_listener, path = listeners[socket] ~= nil, paths[record]
    local kind = (path and "unix " or "tcp ") .. (is_listener and "listen socket" or "socket")
    local where = not record.closed and ends_of(record, is_listener) or path
    local state = record.closed and "closed" or is_listener and "listening" or state_of(record.id)
    return format("%s %p: %s%s", kind, socket, where and where .. ", " or "", state)
end

native.set_socket_methods(0, stream_methods, describe)
native.set_socket_methods(1, listener_methods, describe)
