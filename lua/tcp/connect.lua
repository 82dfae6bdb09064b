-- Listening and connecting, over IP and unix addresses, with host names looked up off the workers.

local native, core, sockets, tcp = ...

local select, tonumber, type, unpack = select, tonumber, type, unpack
local find, format = string.find, string.format
local floor, max, min, HUGE = math.floor, math.max, math.min, math.huge
local bad, options = core.bad, core.options
local call, defer, hold = core.call, core.defer, core.hold
local guard, register, set_timeout = core.guard, core.register, core.set_timeout
local suspend, check_may_wait = core.suspend, core.check_may_wait
local is_shortage, resolve, check_port = sockets.is_shortage, sockets.resolve, sockets.check_port
local new_stream, new_listener = sockets.new_stream, sockets.new_listener

local TIMEOUT, AGAIN = 208, 4
local ADDRESS_MAX, UNIX_PATH_MAX = 253, 107
local BACKLOG_DEFAULT, BACKLOG_MAX = 4096, 2 ^ 31 - 1
-- How long to wait before connecting again to a unix socket whose backlog is full.
local RETRY_SECONDS = 0.05

-- Families, as the native side knows them.
local IP, IP6, UNIX = 0, 6, 1

local function check_address(address, name)
    if type(address) ~= "string" then bad(1, name, "address", address) end
end

local function check_path(path, name)
    if type(path) ~= "string" then bad(1, name, "path", path) end
    if find(path, "\0", 1, true) then bad(1, name, "path without a zero byte", path) end
    if #path == 0 or #path > UNIX_PATH_MAX then
        bad(
            1,
            name,
            format("path of 1 to %d bytes, as unix sockets have them,", UNIX_PATH_MAX),
            path
        )
    end
end

-- Runs `work`, which may wait, and returns its results; or, with a callback, in a root of its own,
-- the callback getting the results and `...`. The socket of a callback that fails is closed.
local function attempt(callback, work, ...)
    if not callback then return work() end
    local n, given = select("#", ...), { ... }
    hold(1)
    defer(call, function()
        hold(-1)
        local ok, value = work()
        if ok then guard(value) end
        return callback(ok, value, unpack(given, 1, n))
    end)
end

local function listen_now(family, address, port, backlog, reuse_port)
    local id, code = native.listen(family, address, port, backlog, reuse_port)
    if not id and is_shortage(code) then
        sockets.get_shortage().collect()
        id, code = native.listen(family, address, port, backlog, reuse_port)
    end
    if id then return true, new_listener(id, family == UNIX and address) end
    return false, code
end

local function listen_ip(name, family, address, port, ...)
    check_address(address, name)
    if #address > ADDRESS_MAX then
        bad(1, name, format("address of at most %d bytes", ADDRESS_MAX), address)
    end
    local number = check_port(port, name, 2)
    local n = select("#", ...)
    local a = ...
    local backlog, reuse_port, callback = BACKLOG_DEFAULT, false, nil
    local optional = 0
    if n > 0 and type(a) ~= "function" then
        optional = 1
        if type(a) == "boolean" then
            reuse_port = a
        else
            backlog = tonumber(a)
            if not backlog or backlog ~= floor(backlog) or backlog < 0 or backlog > BACKLOG_MAX then
                local text = "backlog from 0 to %d, or true for SO_REUSEPORT,"
                bad(3, name, format(text, BACKLOG_MAX), a)
            end
        end
    end
    if n > optional then
        callback = select(optional + 1, ...)
        if type(callback) ~= "function" then bad(3 + optional, name, "function", callback) end
        core.no_more(4 + optional, name, select(optional + 2, ...))
    end
    local function work()
        local ok, value = listen_now(family, address, number, backlog, reuse_port)
        if value ~= nil then return ok, value end
        -- Not numeric: look the name up, then take the first address that works.
        check_may_wait()
        local found, addresses = resolve(family, address, number)
        local want = {}
        while not found do
            local pause = is_shortage(addresses) and sockets.get_shortage().relieve(want, HUGE)
            if not pause then return false, addresses end
            if pause > 0 then core.sleep(pause) end
            found, addresses = resolve(family, address, number)
        end
        for i = 1, #addresses do
            ok, value = listen_now(family, addresses[i], number, backlog, reuse_port)
            if ok then break end
        end
        return ok, value
    end
    if callback then
        if optional == 1 then return attempt(callback, work, address, port, a) end
        return attempt(callback, work, address, port)
    end
    return work()
end

-- For module http, which must find them whatever a script puts in the place of others.
sockets.listen = listen_ip

--- Listens on an IP address or host name. `backlog` may be `true` for SO_REUSEPORT.
---@param address string
---@param port integer 0 for any free one
---@param ... any backlog, callback
---@return boolean|nil ok, userdata|integer listen socket or code
function tcp.listen(address, port, ...) return listen_ip("listen", IP, address, port, ...) end

--- As tcp.listen, on IPv6 only.
function tcp.listen6(address, port, ...) return listen_ip("listen6", IP6, address, port, ...) end

--- Listens on a unix socket.
---@param path string
---@param callback? function
---@return boolean|nil ok, userdata|integer listen socket or code
function tcp.listens(path, ...)
    check_path(path, "listens")
    local function work() return listen_now(UNIX, path, 0, BACKLOG_DEFAULT, false) end
    if select("#", ...) == 0 then return work() end
    local callback = ...
    if type(callback) ~= "function" then bad(2, "listens", "function", callback) end
    core.no_more(3, "listens", select(2, ...))
    return attempt(callback, work, path)
end

-- Waits for a connection to be made; retries while a unix socket's backlog is full.
local function connect_now(family, address, port, timeout)
    local token = register()
    set_timeout(token, timeout)
    native.connect(token, family, address, port)
    local ok, value = suspend()
    if ok then return true, new_stream(value, family == UNIX and address) end
    if value == TIMEOUT then native.cancel_connect(token) end
    return false, value
end

local function connect(family, address, port, timeout, callback, ...)
    if not callback then
        if timeout < 0 then return false, TIMEOUT end
        check_may_wait()
    end
    return attempt(callback, function()
        if timeout < 0 then return false, TIMEOUT end
        local deadline = timeout > 0 and native.now() + timeout
        local ok, value = connect_now(family, address, port, timeout)
        local want
        while not ok do
            local pause, left = RETRY_SECONDS, deadline and deadline - native.now() or HUGE
            if value ~= AGAIN or family ~= UNIX then
                if not is_shortage(value) then return false, value end
                want = want or {}
                pause = sockets.get_shortage().relieve(want, left)
                if not pause then return false, value end
            end
            if pause > 0 then core.sleep(max(min(pause, left), 0)) end
            if deadline then left = deadline - native.now() end
            if left <= 0 then return false, TIMEOUT end
            ok, value = connect_now(family, address, port, deadline and left or 0)
        end
        return ok, value
    end, ...)
end

-- For module http, too.
function sockets.connect(family, address, port, timeout)
    return connect(family, address, port, timeout)
end

local function connect_ip(name, family, address, port, ...)
    check_address(address, name)
    local number = check_port(port, name, 2)
    local timeout, callback, given = options(name, 3, select("#", ...), ...)
    if given == 1 then
        return connect(family, address, number, timeout, callback, address, port, (...))
    end
    return connect(family, address, number, timeout, callback, address, port)
end

--- Connects to an IP address or host name.
---@param address string
---@param port integer
---@param ... any timeout in seconds, callback
---@return boolean|nil ok, userdata|integer socket or code
function tcp.connect(address, port, ...) return connect_ip("connect", IP, address, port, ...) end

--- As tcp.connect, to IPv6 addresses only.
function tcp.connect6(address, port, ...) return connect_ip("connect6", IP6, address, port, ...) end

--- Connects to a unix socket.
---@param path string
---@param ... any timeout in seconds, callback
---@return boolean|nil ok, userdata|integer socket or code
function tcp.connects(path, ...)
    check_path(path, "connects")
    local timeout, callback, given = options("connects", 2, select("#", ...), ...)
    if given == 1 then return connect(UNIX, path, 0, timeout, callback, path, (...)) end
    return connect(UNIX, path, 0, timeout, callback, path)
end
