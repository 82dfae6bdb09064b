-- udp: datagrams over IPv4 and IPv6. See docs/api/udp.md.

local native, core = ...

local format = string.format
local select, setmetatable, type, unpack = select, setmetatable, type, unpack
local bad, raise = core.bad, core.raise
local timeout_of, handlers = core.timeout_of, core.handlers
local call, complete, defer, hold = core.call, core.complete, core.defer, core.hold
local guard, register, cancel = core.guard, core.register, core.cancel
local suspend, check_may_wait = core.suspend, core.check_may_wait
local resume_waiter = core.resume_waiter
local find, native_read, native_write = string.find, native.udp_read, native.udp_write

core.sockets = core.sockets or native.load("tcp/socket")(native, core)
local no_more = core.no_more
local waits = core.sockets -- what sockets of all kinds have in common
local by_id, wait_on, set_callback = waits.by_id, waits.wait_on, waits.set_callback
local next_waiter, take_waiter = waits.next_waiter, waits.take_waiter
local release_anchor, close_record = waits.release_anchor, waits.close_record
local resolve, check_port = waits.resolve, waits.check_port

local SOCKET_CLOSED, TIMEOUT = 203, 208

-- As those of lua/tcp/socket.lua. In stock are datagrams, each as a buffer, an address and a port.
-- `address` and `port` are of the one that somebody who waits is just given.
local records = setmetatable({}, { __mode = "k" })

local udp = {}
core.udp, core.udp_records = udp, records
local on_ready -- what is done once there are datagrams

-- Raises, unless it is an open socket of ours.
local function check(socket, name)
    local record = records[socket]
    if record == nil then bad(1, name, "udp socket", socket) end
    if record.closed then
        raise(
            format("udp socket has been closed: '%s' needs an open one (udp.is_closed tells)", name)
        )
    end
    return record
end

local function check_address(address, name, position)
    if type(address) ~= "string" then bad(position, name, "address", address) end
end

-- Calls f, which returns whether it has worked, and otherwise a code, for one address of a name
-- after the other, until it has; those of IPv4 first.
local function try(addresses, f)
    local ok, value
    for family = 4, 6, 2 do
        for i = 1, #addresses do
            if (family == 6) == (find(addresses[i], ":", 1, true) ~= nil) then
                ok, value = f(addresses[i])
                if ok then return ok, value end
            end
        end
    end
    return ok, value
end

-- Open --------------------------------------------------------------------------------------------

local function new_socket(id)
    local socket = native.socket_object(id, 3)
    local record = {
        id = id,
        closed = false,
        connected = false,
        first = 1,
        last = 0,
        queue = {},
        tail = 0,
        head = 0,
        drained = false,
        waiter = false,
        busy = false,
        callback = false,
        eof_sent = false,
        monitor = false,
        anchor = false,
        address = false,
        port = 0,
        serve = on_ready,
    }
    records[socket] = record
    by_id[id] = record
    return socket
end

-- The socket; false and a code; nothing if the address is a name.
local function bind(address, port, six)
    local id, code = native.udp_open(address, port, six)
    if not id and waits.is_shortage(code) then
        waits.get_shortage().collect()
        id, code = native.udp_open(address, port, six)
    end
    if id then return true, new_socket(id) end
    return id, code
end

-- Binds to an address; waits if it is a name.
local function bind_to(address, port, six)
    local ok, value = bind(address, port, six)
    if ok ~= nil then return ok, value end
    check_may_wait()
    local found, addresses = resolve(six and 6 or 0, address, port)
    if not found then return false, addresses end
    return try(addresses, function(one) return bind(one, port, six) end)
end

local function open(name, six, ...)
    local n = select("#", ...)
    local address, port, callback = six and "::" or "0.0.0.0", 0, nil
    local given = 0
    if n > 0 and type((...)) ~= "function" then
        given = 2
        local wanted
        address, wanted = ...
        check_address(address, name, 1)
        port = check_port(wanted, name, 2)
    end
    if n > given then
        callback = select(given + 1, ...)
        if type(callback) ~= "function" then bad(given + 1, name, "function", callback) end
    end
    no_more(given + 2, name, select(given + 2, ...))
    if not callback then return bind_to(address, port, six) end
    local arguments = { ... }
    hold(1)
    defer(call, function()
        hold(-1)
        local ok, value = bind_to(address, port, six)
        if ok then guard(value) end
        return callback(ok, value, unpack(arguments, 1, given))
    end)
end

--- Opens a socket, at an address and port of this machine; without them at any free port of all its
--- IPv4 addresses.
---@param ... any address, port, callback(ok, socket|code[, address, port])
---@return boolean|nil ok, userdata|integer socket or code
function udp.open(...) return open("open", false, ...) end

--- As udp.open, for IPv6 only.
function udp.open6(...) return open("open6", true, ...) end

-- Read --------------------------------------------------------------------------------------------

-- The next datagram: buffer, address and port; nil and a code; nothing if there is none yet, or in
-- a finaliser that runs while one is taken. One native call brings many, which wait in the record's
-- stock.
local function take(record)
    if record.busy then return end
    record.busy = true
    local at, stock = record.head, record.queue
    if at >= record.tail then
        local count, more
        if not record.drained then
            count, more = native_read(record.id, stock)
            record.drained = more == nil
        end
        if not count then
            record.busy = false
            return nil, more
        end
        at, record.tail, record.drained = 0, 3 * count, more
    end
    record.head = at + 3
    local data = stock[at + 1]
    stock[at + 1] = false
    record.busy = false
    return data, stock[at + 2], stock[at + 3]
end

-- Serves who waits for datagrams, as far as there are some.
local function serve(record)
    while not record.closed do
        local is_alone = record.waiter
        local token = not is_alone and next_waiter(record)
        local callback = record.callback
        if not is_alone and not token and not callback then return release_anchor(record) end
        local data, address, port = take(record)
        if address == nil then return end
        local ok, value = data ~= nil, data or address
        if is_alone then
            record.address, record.port = address, port
            resume_waiter(record, ok, value)
        elseif token then
            record.address, record.port = address, port
            take_waiter(record)
            complete(token, ok, value)
        elseif ok then
            local is_ip6 = find(address, ":", 1, true) ~= nil
            call(callback, true, data, address, port, is_ip6, record.anchor)
        else
            call(callback, false, value, nil, nil, nil, record.anchor)
        end
    end
end

-- The event that there are some.
function on_ready(record)
    record.drained = false
    return serve(record)
end

local READY = 4

-- Unless lua/tcp/init.lua has, or will have, one for all sockets.
handlers[READY] = handlers[READY]
    or function(id)
        local record = by_id[id]
        if record then return record.serve(record) end
    end

-- Every wait is another path through it.
core.interpret(serve)

--- Reads a datagram, or has a callback get every one.
---@param socket userdata
---@param how? number|function timeout in seconds, or
--- callback(ok, buffer|code, address, port, is_ip6, socket)
---@return boolean|nil ok, userdata|integer buffer or code, string address, integer port
function udp.read(socket, ...)
    local record = records[socket]
    if record == nil or record.closed then check(socket, "read") end
    local timeout = 0
    local n = select("#", ...)
    if n > 0 then
        local how, more = ...
        if n > 1 then bad(3, "read", nil, more) end
        if type(how) == "function" then return set_callback(socket, record, how, serve) end
        timeout = timeout_of(how, 2, "read")
        if timeout < 0 then return false, TIMEOUT end
    end
    if not record.waiter and (record.first > record.last or not next_waiter(record)) then
        local data, address, port = take(record)
        if data then return true, data, address, port end
        if address then return false, address end
    end
    check_may_wait()
    local ok, data = wait_on(socket, record, timeout)
    if not ok then return false, data end
    return true, data, record.address, record.port
end
core.interpret(udp.read)

-- Write -------------------------------------------------------------------------------------------

-- Stages a datagram for an address that is a name, once that is looked up; who waits for it under
-- `token` is told. It is sent as it is now.
local function send_by_name(id, is_fd, data, token, address, port, six)
    local text = format("%s", data)
    hold(1)
    defer(call, function()
        hold(-1)
        local ok, value = resolve(six and 6 or 0, address, port)
        if not ok then
            native.udp_count_failed(id, is_fd)
        else
            ok, value = try(value, function(one)
                local code = native_write(id, is_fd, text, token, one, port, six)
                return not code, code
            end)
        end
        if not ok and token > 0 then return complete(token, false, value) end
    end)
end

local function send(name, six, target, data, address, port, how)
    local record = records[target]
    local is_fd = type(target) == "number"
    if record == nil and not (is_fd and target % 1 == 0) then
        bad(1, name, is_fd and "number that udp.fd has returned" or "udp socket or fd", target)
    end
    if record and record.closed then check(target, name) end
    local position = 5
    local kind = type(address)
    if kind == "nil" or kind == "boolean" or kind == "function" then
        -- To the one that it is connected to.
        if record and not record.connected then
            kind = type(data)
            if kind ~= "string" and kind ~= "number" and kind ~= "userdata" then
                bad(2, name, "string, number or buffer", data)
            end
            bad(3, name, "address, since the socket is not connected (udp.connect),", address)
        end
        if how or port or how == false or port == false then bad(3, name, "address", address) end
        position, how, address = 3, address, nil
    else
        check_address(address, name, 3)
        port = check_port(port, name, 4)
    end
    local token = 0
    local is_callback = type(how) == "function"
    if is_callback then
        token = register(function(ok, code)
            if ok then code = 0 end
            if address == nil then return how(ok, code, target, data) end
            return how(ok, code, target, data, address, port)
        end)
    elseif how and type(how) == "boolean" then
        check_may_wait()
        token = register()
    elseif how then
        bad(position, name, "boolean or function", how)
    end
    local id = is_fd and target or record.id
    local code, is_wrong = native_write(id, is_fd, data, token, address, port, six)
    if is_wrong then
        if token > 0 then cancel(token) end
        bad(2, name, "string, number or buffer", data)
    end
    if code == false then
        send_by_name(id, is_fd, data, token, address, port, six)
    elseif code then
        if token == 0 then return false, code end
        defer(complete, token, false, code)
    end
    if token > 0 and not is_callback then
        local ok, value = suspend()
        return ok, ok and 0 or value
    end
end

--- Sends a datagram, from any context if the socket is shared: to an address and port, or to the
--- one that the socket is connected to. Plain writes never wait and return nothing, unless the
--- datagram cannot be sent; `true` waits until it is with the system; a callback is told.
---@param target userdata|integer a socket, or what udp.fd returned for one
---@param data string|number|userdata
---@param ... any address, port; boolean or callback(ok, code, target, data[, address, port])
---@return boolean|nil ok, integer|nil code
function udp.write(target, data, ...)
    if select("#", ...) > 3 then no_more(6, "write", select(4, ...)) end
    return send("write", false, target, data, ...)
end

--- As udp.write, to IPv6 addresses only.
function udp.write6(target, data, ...)
    if select("#", ...) > 3 then no_more(6, "write6", select(4, ...)) end
    return send("write6", true, target, data, ...)
end

--- Has the socket send to, and receive from, one address and port alone.
---@param socket userdata
---@param address string
---@param port integer
---@return boolean ok, integer|nil code
function udp.connect(socket, address, port, ...)
    local record = check(socket, "connect")
    check_address(address, "connect", 2)
    local number = check_port(port, "connect", 3)
    no_more(4, "connect", ...)
    local ok, code = native.udp_connect(record.id, address, number)
    if ok == nil then
        check_may_wait()
        local found, addresses = resolve(0, address, number)
        if not found then return false, addresses end
        if record.closed then return false, SOCKET_CLOSED end
        ok, code = try(
            addresses,
            function(one) return native.udp_connect(record.id, one, number) end
        )
    end
    if not ok then return false, code end
    record.connected = true
    return true
end

-- The rest ----------------------------------------------------------------------------------------

--- Closes a socket; what was written still leaves.
---@param socket userdata
---@return boolean first true the first time
function udp.close(socket)
    local record = records[socket]
    if record == nil then bad(1, "close", "udp socket", socket) end
    return close_record(record, SOCKET_CLOSED)
end

--- True for a closed socket, false for an open one and for anything else.
---@param socket any
---@return boolean
function udp.is_closed(socket)
    local record = records[socket]
    return record and record.closed or false
end

--- An integer by which any context may write to the socket, once it is shared.
---@param socket userdata
---@return integer
function udp.fd(socket) return native.fd(check(socket, "fd").id) end

--- The context that owns the socket with this fd; nil if it is closed.
---@param fd integer
---@return integer|nil
function udp.fd_src(fd)
    if type(fd) ~= "number" or fd % 1 ~= 0 or fd < 0 then
        bad(1, "fd_src", "number that udp.fd has returned", fd)
    end
    return native.udp_fd_src(fd)
end

native.load("udp/options")(native, core, udp, records, check)

return udp
