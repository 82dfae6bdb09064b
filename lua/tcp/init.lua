-- tcp: framed stream sockets over IP and unix addresses. See docs/api/tcp.md.

local native, core = ...

local getmetatable, select, type = getmetatable, select, type
local bad, raise = core.bad, core.raise
local timeout_of, handlers = core.timeout_of, core.handlers
local call, complete, defer = core.call, core.complete, core.defer
local register, cancel = core.register, core.cancel
local suspend, check_may_wait = core.suspend, core.check_may_wait
local resume_waiter = core.resume_waiter
local refuse_wait, native_write, strerror = core.refuse_wait, native.write, native.strerror

core.sockets = core.sockets or native.load("tcp/socket")(native, core)
local sockets = core.sockets
local streams, listeners, by_id = sockets.streams, sockets.listeners, sockets.by_id
local refuse, check_stream, check_open = sockets.refuse, sockets.check_stream, sockets.check_open
local next_waiter, take_waiter = sockets.next_waiter, sockets.take_waiter
local release_anchor, wait_first, wait_on =
    sockets.release_anchor, sockets.wait_first, sockets.wait_on
local next_frame, is_busy = sockets.next_frame, sockets.is_busy
local take_stock, add_stock = sockets.take_stock, sockets.add_stock
local put_back, find_other = sockets.put_back, sockets.find_other
local set_callback, close_record = sockets.set_callback, sockets.close_record

local ffi = native.ffi("ffi")
local _, BUFFER = native.buffer_methods()
local stage_buffer, stage_text, stage_shared, take_into = native.stage_pointers()
-- `void`, not `const void`, so that a string is refused, whatever its metatable claims.
stage_buffer = ffi.cast("int (*)(int64_t, void *)", stage_buffer)
stage_shared = ffi.cast("int (*)(int64_t, void *)", stage_shared)
take_into = ffi.cast("int (*)(int64_t, void *)", take_into)
stage_text = ffi.cast("int (*)(int64_t, const char *, uint32_t)", stage_text)
-- Longer texts go the other way.
local TEXT_MAX = 4096

local SOCKET_CLOSED, LISTENER_CLOSED, TIMEOUT = 203, 204, 208

local tcp = {}
native.load("tcp/connect")(native, core, sockets, tcp)

-- Read and accept ---------------------------------------------------------------------------------

-- Serves who waits for data, as far as there is some.
local function serve_stream(record)
    while not record.closed do
        local waits = record.waiter
        local token = not waits and next_waiter(record)
        local callback = record.callback
        if not waits and not token and (not callback or record.eof_sent) then
            return release_anchor(record)
        end
        local data, code
        if record.pieces then
            data, code = sockets.next_of(record, token)
        else
            data, code = next_frame(record)
        end
        if data == nil then return end
        local value = data or code
        if waits then
            resume_waiter(record, data ~= false, value)
        elseif token then
            take_waiter(record)
            complete(token, data ~= false, value)
        elseif data then
            call(callback, true, data, record.anchor)
        else
            record.eof_sent = true
            return call(callback, false, code, record.anchor)
        end
    end
end

core.serve_stream = serve_stream

local READY = 4

-- Something can be read, or accepted. For who waits for frames of a connection the event brings the
-- first, and how many more are in stock; or false and a code.
handlers[READY] = function(id, data, more)
    local record = by_id[id]
    if not record then
        core.stock = {}
        return
    end
    if data then
        if record.head < record.tail then
            add_stock(record, data, more)
            return serve_stream(record)
        end
        if more > 0 then take_stock(record, more) end
        if record.waiter then
            -- What serve_stream does for the most usual reader, in one piece.
            resume_waiter(record, true, data)
            if record.waiter and record.head >= record.tail then return end
        else
            put_back(record, data)
        end
    elseif record.serve then
        return record.serve(record)
    elseif data == nil and record.waiter then
        -- Who reads into a buffer takes the frame from where it is.
        resume_waiter(record, true)
        if record.waiter and record.head >= record.tail then return end
    end
    return serve_stream(record)
end

-- Every wait is another path through these: compiled, they are many traces that serve little.
core.interpret(serve_stream)
core.interpret(handlers[READY])

local accept -- what tcp/accept.lua returns, once somebody accepts

--- Accepts a connection, or has a callback get every one.
---@param socket userdata
---@param how? number|function timeout in seconds, or callback(true, socket, listen socket)
---@return boolean|nil ok, userdata|integer socket or code
function tcp.accept(socket, ...)
    accept = accept or native.load("tcp/accept")(native, core, sockets)
    return accept(socket, ...)
end

--- Reads a frame (or, without heads, whatever has come), or has a callback get every one.
---@param socket userdata
---@param how? number|function timeout in seconds, or callback(ok, buffer|code, socket)
---@return boolean|nil ok, userdata|integer buffer or code
function tcp.read(socket, ...)
    local record = streams[socket]
    if record == nil then refuse(socket, "read") end
    if record.closed then check_open(record, SOCKET_CLOSED, "read") end
    local timeout = 0
    local n = select("#", ...)
    if n > 0 then
        local how, more = ...
        if n > 1 then bad(3, "read", nil, more) end
        if type(how) == "function" then return set_callback(socket, record, how, serve_stream) end
        timeout = timeout_of(how, 2, "read")
        if timeout < 0 then return false, TIMEOUT end
    end
    if record.waiter or record.first <= record.last and next_waiter(record) then
        check_may_wait()
    else
        local data, why = next_frame(record, true)
        if data then
            -- Of several frames that came, the others are for the callback.
            if record.callback then defer(serve_stream, record) end
            return true, data
        end
        if data == false then return false, why end
        if why then refuse_wait(why) end
    end
    return wait_on(socket, record, timeout)
end

-- Raises, for the caller of read_into, if the buffer is released.
local function check_live(data)
    if not native.buffer_is_live(data) then
        bad(2, "read_into", "buffer that is not released", data)
    end
end

-- Gives the content of a frame to the buffer of who reads into one.
local function assign(record, data, frame)
    if not native.buffer_assign(data, frame) then
        put_back(record, frame)
        check_live(data)
    end
    return true, data
end

-- Takes the next frame into `data`, as the only one who reads: 0 if there was one, 1 if there is
-- none yet, 2 if read_into has to go the long way. Compiled, also where what calls it is not.
local function take(record, data)
    -- What has come is before it.
    if record.head < record.tail or is_busy(record) then return 2 end
    return take_into(record.id, data)
end

-- read_into where there may be nothing yet: waits until there is; `found` is what `take` has said.
local function pull(socket, record, data, found, ...)
    while found == 1 do
        check_may_wait()
        local ok, frame = wait_first(socket, record)
        if not ok then return false, frame end
        if frame then return assign(record, data, frame) end
        -- Whoever has come meanwhile waits behind this one, also if it finds nothing.
        found = take(record, data)
        if found == 0 then return true, data end
    end
    check_live(data)
    local timeout, n = 0, select("#", ...)
    if n > 1 then bad(4, "read_into", nil, (select(2, ...))) end
    if n > 0 then timeout = timeout_of((...), 3, "read_into") end
    local ok, frame = tcp.read(socket, timeout)
    if not ok then return false, frame end
    return assign(record, data, frame)
end

--- Reads a frame, as `tcp.read` does, into a buffer, in place of what that holds: a reader that has
--- done with each frame before it asks for the next one leaves nothing to the collector.
---@param socket userdata
---@param data userdata a buffer
---@param timeout? number seconds
---@return boolean ok, userdata|integer data or code
function tcp.read_into(socket, data, ...)
    local record = streams[socket]
    if record == nil then refuse(socket, "read_into") end
    if getmetatable(data) ~= BUFFER then bad(2, "read_into", "buffer", data) end
    if record.closed then check_open(record, SOCKET_CLOSED, "read_into") end
    local found
    if not record.waiter and record.first > record.last and select("#", ...) == 0 then
        found = take(record, data)
        if found == 0 then return true, data end
    end
    return pull(socket, record, data, found, ...)
end

-- Write -------------------------------------------------------------------------------------------

-- Raises if that is what native.write has returned.
local function raise_unwritten(data, code, why)
    if code then raise(strerror(code)) end
    if why == 0 then bad(2, "write", "string, number or buffer", data) end
    if why then native.bad_because(2, "write", why) end
end

-- The entry of a write with a callback.
local function write_entry(callback, target, data)
    return function(ok, code) return callback(ok, ok and 0 or code, target, data) end
end

local function finish_write(ok, code)
    if ok then return true, 0 end
    return false, code
end

local function write_shared(fd, data, how)
    if fd % 1 ~= 0 then bad(1, "write", "tcp socket, or what tcp.fd has returned,", fd) end
    local token
    if not how and getmetatable(data) == BUFFER and stage_shared(fd, data) == 0 then return end
    if type(how) == "function" then
        token = register(write_entry(how, fd, data))
    elseif how and type(how) == "boolean" then
        check_may_wait()
        token = register()
    elseif how then
        bad(3, "write", "boolean or function", how)
    end
    local code, why = native_write(fd, data, token or 0, true)
    if why ~= nil then
        if token then cancel(token) end
        raise_unwritten(data, nil, why)
    end
    if code then
        if not token then return false, code end
        defer(complete, token, false, code)
    end
    if token and type(how) ~= "function" then return finish_write(suspend()) end
end

--- Writes a frame. Plain writes never wait and return nothing; `true` waits until the bytes are
--- with the kernel; a callback is told.
---@param socket userdata|integer a socket, or what tcp.fd returned for one
---@param data string|number|userdata
---@param how? boolean|function
---@return boolean|nil ok, integer|nil code
function tcp.write(socket, data, how, more)
    if more or more == false then bad(4, "write", nil, more) end
    local record = streams[socket]
    if record == nil then
        if type(socket) == "number" then return write_shared(socket, data, how) end
        record = refuse(socket, "write")
    end
    if record.closed then check_open(record, SOCKET_CLOSED, "write") end
    if not how then
        -- What compiled code can do by itself; the rest, and complaints, are native.write's.
        if getmetatable(data) == BUFFER then
            if stage_buffer(record.id, data) == 0 then return end
        elseif type(data) == "string" and #data < TEXT_MAX then
            if stage_text(record.id, data, #data) == 0 then return end
        end
        return raise_unwritten(data, native_write(record.id, data, 0))
    end
    local is_callback = type(how) == "function"
    local token
    if is_callback then
        token = register(write_entry(how, socket, data))
    elseif type(how) == "boolean" then
        check_may_wait()
        token = register()
    else
        bad(3, "write", "boolean or function", how)
    end
    local code, why = native_write(record.id, data, token)
    if code or why then
        cancel(token)
        raise_unwritten(data, code, why)
    end
    if not is_callback then return finish_write(suspend()) end
end

-- Options and state -------------------------------------------------------------------------------

-- Functions of a file that is loaded once one of them is called.
local function define(file, ...)
    local loaded
    for i = 1, select("#", ...) do
        local name = select(i, ...)
        tcp[name] = function(...)
            loaded = loaded or native.load(file)(native, core, sockets)
            return loaded[name](...)
        end
    end
end

define(
    "tcp/options",
    "get_rwopt",
    "set_rwopt",
    "reframe",
    "set_nodelay",
    "set_write_limit",
    "set_wshared",
    "stat"
)
define("tcp/piece", "read_bytes", "read_until")
define("tcp/ending", "shutdown", "abort", "set_keepalive")
if native.tls_has then define("tcp/tls", "start_tls", "tls") end

--- An integer by which any context may write to the socket, once it is shared.
---@param socket userdata
---@return integer
function tcp.fd(socket)
    local record = check_stream(socket, "fd")
    check_open(record, SOCKET_CLOSED, "fd")
    return native.fd(record.id)
end

--- The context that owns the socket with this fd; nil if it is closed.
---@param fd integer
---@return integer|nil
function tcp.fd_src(fd)
    if type(fd) ~= "number" or fd % 1 ~= 0 then
        bad(1, "fd_src", "number that tcp.fd has returned", fd)
    end
    return native.fd_src(fd)
end

local set_monitor -- what tcp/monitor.lua returns, once something is monitored

local function address_of(which, name)
    return function(socket)
        local record = streams[socket] or listeners[socket] or find_other(socket, name)
        if record == nil then bad(1, name, "tcp socket", socket) end
        if which > 2 and listeners[socket] then refuse(socket, name) end
        if record.closed then return end
        return native.address(record.id, which)
    end
end

tcp.local_addr = address_of(1, "local_addr")
tcp.local_port = address_of(2, "local_port")
tcp.remote_addr = address_of(3, "remote_addr")
tcp.remote_port = address_of(4, "remote_port")

--- Has callback(code, socket) called once, when the connection can no longer be written, or its
--- peer has gone (code 1: it closed); nil removes it.
---@param socket userdata
---@param callback function|nil
function tcp.monitor(socket, ...)
    set_monitor = set_monitor or native.load("tcp/monitor")(native, core, sockets)
    return set_monitor(socket, ...)
end

--- Closes a socket or listen socket; what was written still leaves.
---@param socket userdata
---@return boolean first true the first time
function tcp.close(socket)
    local record = streams[socket] or find_other(socket, "close")
    if record then return close_record(record, SOCKET_CLOSED) end
    record = listeners[socket]
    if record == nil then bad(1, "close", "tcp socket", socket) end
    return close_record(record, LISTENER_CLOSED)
end

--- True for a closed socket, false for an open one and for anything else.
---@param socket any
---@return boolean
function tcp.is_closed(socket)
    local record = streams[socket] or listeners[socket] or find_other(socket, "is_closed")
    return record and record.closed or false
end

-- Takes a connection from its socket, which is closed then: the key, for another kind.
function sockets.release(socket)
    local record = streams[socket]
    if record.closed then return end
    record.closed = true
    by_id[record.id] = nil
    native.detach_socket(socket)
    return record.id
end

sockets.close, sockets.write, sockets.read_until = tcp.close, tcp.write, tcp.read_until
sockets.start_tls, sockets.tls = tcp.start_tls, tcp.tls

native.load("tcp/methods")(native, core, sockets, tcp)

return tcp
