-- tcp: framed stream sockets over IP and unix addresses. See docs/api/tcp.md.

local native, core = ...

local error, select, setmetatable, tonumber, type = error, select, setmetatable, tonumber, type
local unpack = unpack
local bad, seconds, handlers, options = core.bad, core.seconds, core.handlers, core.options
local call, complete, defer, hold = core.call, core.complete, core.defer, core.hold
local register, cancel, set_timeout = core.register, core.cancel, core.set_timeout
local suspend, check_may_wait, is_waiting = core.suspend, core.check_may_wait, core.is_waiting
local timer_start, timers = native.timer_start, core.timers
local native_read, native_write, strerror = native.read, native.write, native.strerror

local SOCKET_CLOSED, LISTENER_CLOSED, TIMEOUT = 203, 204, 208
local TOO_MANY_FILES, FILE_TABLE_FULL, AGAIN = 20, 24, 4
local ADDRESS_MAX, UNIX_PATH_MAX, PORT_MAX = 253, 107, 65535
local BACKLOG_DEFAULT = 4096
-- How long to wait before accepting, or connecting, again when the system is out of something.
local RETRY_SECONDS = 0.05

-- Families, as the native side knows them.
local IP, IP6, UNIX = 0, 6, 1

-- Records of sockets: id, closed, callback, and the tokens of who waits from `first` to `last`.
-- A record holds its socket in `anchor` while somebody waits, so that the collector spares it.
local streams = setmetatable({}, { __mode = "k" })
local listeners = setmetatable({}, { __mode = "k" })
local by_id = setmetatable({}, { __mode = "v" })

local tcp, stream_methods, listener_methods = core.tcp, {}, {}

local function check_stream(value, name)
  local record = streams[value]
  if record == nil then bad(1, name, "tcp socket", value) end
  return record
end

local function check_listener(value, name)
  local record = listeners[value]
  if record == nil then bad(1, name, "tcp listen socket", value) end
  return record
end

local function check_open(record, code)
  if record.closed then error(strerror(code), 3) end
end

local function new_socket(registry, id)
  local socket = native.socket_object(id, registry == listeners)
  local record = { id = id, closed = false, first = 1, last = 0 }
  registry[socket] = record
  by_id[id] = record
  return socket
end

local function new_stream(id)
  return new_socket(streams, id)
end

-- Waiting on a socket -----------------------------------------------------------------------------

local function next_waiter(record)
  local first, last = record.first, record.last
  while first <= last do
    local token = record[first]
    if is_waiting(token) then
      record.first = first
      return token
    end
    record[first] = nil
    first = first + 1
  end
  record.first, record.last = 1, 0
end

local function take_waiter(record)
  record[record.first] = nil
  record.first = record.first + 1
end

local function release_anchor(record)
  if not record.callback and not next_waiter(record) then record.anchor = nil end
end

-- Blocks the running root on a socket; `first` is what the operation found at once, if anything.
local function wait_on(socket, record, timeout)
  local token = register()
  record.last = record.last + 1
  record[record.last] = token
  record.anchor = socket
  set_timeout(token, timeout)
  return suspend()
end

local function set_callback(socket, record, callback, serve)
  if not record.callback then hold(1) end
  record.callback = callback
  record.anchor = socket
  record.told = nil
  defer(serve, record)
end

local function fail_waiters(record, code)
  local token = next_waiter(record)
  while token do
    take_waiter(record)
    complete(token, false, code)
    token = next_waiter(record)
  end
  record.anchor = nil
end

local function close_record(record, code)
  if record.closed then return false end
  record.closed = true
  by_id[record.id] = nil
  native.close(record.id)
  if record.callback then
    record.callback = nil
    hold(-1)
  end
  if record.first <= record.last then
    defer(fail_waiters, record, code)
  else
    record.anchor = nil
  end
  return true
end

-- Read and accept ---------------------------------------------------------------------------------

-- Serves who waits for data, as far as there is some.
local function serve_stream(record)
  while not record.closed do
    local token = next_waiter(record)
    local callback = record.callback
    if not token and (not callback or record.told) then return release_anchor(record) end
    local data, code = native_read(record.id)
    if not data and not code then return end
    if token then
      take_waiter(record)
      if data then
        complete(token, true, data)
      else
        complete(token, false, code)
      end
    elseif data then
      call(callback, true, data, record.anchor)
    else
      record.told = true
      return call(callback, false, code, record.anchor)
    end
  end
end

local function serve_listener(record)
  while not record.closed do
    local token = next_waiter(record)
    if not token and not record.callback then return release_anchor(record) end
    local id, code = native.accept(record.id)
    if not id and code == nil then return end
    if not id then
      if code == TOO_MANY_FILES or code == FILE_TABLE_FULL then
        -- The connection stays in the kernel's queue until descriptors are free again. The timer
        -- does not keep the context alive: whoever accepts does.
        local timer = timer_start(RETRY_SECONDS, 0)
        hold(1)
        timers[timer] = function() defer(serve_listener, record) end
        return
      end
      -- Anything else concerns that one connection, which is gone: the next is waited for.
    elseif token then
      take_waiter(record)
      complete(token, true, new_stream(id))
    else
      call(record.callback, true, new_stream(id), record.anchor)
    end
  end
end

handlers[4] = function(id)
  local record = by_id[id]
  if record then return serve_stream(record) end
end

handlers[5] = function(id)
  local record = by_id[id]
  if record then return serve_listener(record) end
end

--- Reads a frame (or, without heads, whatever has come), or has a callback get every one.
---@param socket userdata
---@param how? number|function timeout in seconds, or callback(ok, buffer|code, socket)
---@return boolean|nil ok, userdata|integer buffer or code
function tcp.read(socket, ...)
  local record = streams[socket]
  if record == nil then bad(1, "read", "tcp socket", socket, 3) end
  check_open(record, SOCKET_CLOSED)
  local timeout = 0
  if select("#", ...) > 0 then
    local how = ...
    if type(how) == "function" then return set_callback(socket, record, how, serve_stream) end
    timeout = seconds(how, 2, "read")
  end
  if record.first > record.last or not next_waiter(record) then
    local data, code = native_read(record.id)
    if data then return true, data end
    if code then return false, code end
  end
  check_may_wait()
  return wait_on(socket, record, timeout)
end

--- Accepts a connection, or has a callback get every one.
---@param socket userdata
---@param how? number|function timeout in seconds, or callback(true, socket, listen socket)
---@return boolean|nil ok, userdata|integer socket or code
function tcp.accept(socket, ...)
  local record = check_listener(socket, "accept")
  check_open(record, LISTENER_CLOSED)
  local timeout = 0
  if select("#", ...) > 0 then
    local how = ...
    if type(how) == "function" then return set_callback(socket, record, how, serve_listener) end
    timeout = seconds(how, 2, "accept")
  end
  if not next_waiter(record) then
    local id, code = native.accept(record.id)
    if id then return true, new_stream(id) end
    if code ~= nil then defer(serve_listener, record) end
  end
  check_may_wait()
  return wait_on(socket, record, timeout)
end

-- Write -------------------------------------------------------------------------------------------

local function raise_unwritable(why, data, name)
  if why == 0 then bad(2, name, "string, number or buffer", data, 4) end
  error(why, 3)
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
  local token
  if type(how) == "function" then
    token = register(write_entry(how, fd, data))
  elseif how then
    check_may_wait()
    token = register()
  end
  local code, why = native.write_shared(fd, data, token or 0)
  if why ~= nil then
    if token then cancel(token) end
    raise_unwritable(why, data, "write")
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
function tcp.write(socket, data, how)
  local record = streams[socket]
  if record == nil then
    if type(socket) == "number" then return write_shared(socket, data, how) end
    bad(1, "write", "tcp socket", socket, 3)
  end
  check_open(record, SOCKET_CLOSED)
  if not how then
    local why = native_write(record.id, data, 0)
    if why ~= nil then raise_unwritable(why, data, "write") end
    return
  end
  local is_callback = type(how) == "function"
  local token
  if is_callback then
    token = register(write_entry(how, socket, data))
  elseif how == true then
    check_may_wait()
    token = register()
  else
    bad(3, "write", "boolean or function", how, 3)
  end
  local why = native_write(record.id, data, token)
  if why ~= nil then
    cancel(token)
    raise_unwritable(why, data, "write")
  end
  if not is_callback then return finish_write(suspend()) end
end

-- Listen and connect ------------------------------------------------------------------------------

local function check_address(address, name)
  if type(address) ~= "string" then bad(1, name, "address", address) end
  if #address > ADDRESS_MAX then
    error(
      ("bad argument #1 to '%s' (address of %d bytes exceeds %d)"):format(
        name,
        #address,
        ADDRESS_MAX
      ),
      3
    )
  end
  return address
end

local function check_port(port, name)
  local number = tonumber(port)
  if not number then bad(2, name, "port", port) end
  if number ~= math.floor(number) or number < 0 or number > PORT_MAX then
    error(("bad argument #2 to '%s' (port %s is not in 0..%d)"):format(name, number, PORT_MAX), 3)
  end
  return number
end

local function check_path(path, name)
  if type(path) ~= "string" then bad(1, name, "path", path) end
  if #path == 0 or #path > UNIX_PATH_MAX or path:find("\0", 1, true) then
    error(
      ("bad argument #1 to '%s' (path of %d bytes is not in 1..%d, or has a zero byte)"):format(
        name,
        #path,
        UNIX_PATH_MAX
      ),
      3
    )
  end
  return path
end

-- Runs `work`, which may wait, and returns its results; or, with a callback, in a root of its own,
-- the callback getting the results and `...`.
local function attempt(callback, work, ...)
  if not callback then return work() end
  local n, given = select("#", ...), { ... }
  hold(1)
  defer(call, function()
    hold(-1)
    local ok, value = work()
    return callback(ok, value, unpack(given, 1, n))
  end)
end

local function listen_now(family, address, port, backlog, reuse_port)
  local id, code = native.listen(family, address, port, backlog, reuse_port)
  if id then return true, new_socket(listeners, id) end
  return false, code
end

local function listen_ip(name, family, address, port, ...)
  check_address(address, name)
  local number = check_port(port, name)
  local n = select("#", ...)
  local a, b = ...
  local backlog, reuse_port, callback = BACKLOG_DEFAULT, false, nil
  local optional = n
  if n > 0 and type(select(n, ...)) == "function" then
    callback = select(n, ...)
    optional = n - 1
  end
  if optional > 1 then bad(4, name, "function", b, 4) end
  if optional == 1 then
    if type(a) == "boolean" then
      reuse_port = a
    elseif tonumber(a) then
      backlog = tonumber(a)
    else
      bad(3, name, "backlog", a, 4)
    end
  end
  local function work()
    local ok, value = listen_now(family, address, number, backlog, reuse_port)
    if value ~= nil then return ok, value end
    -- Not numeric: look the name up, then take the first address that works.
    check_may_wait()
    local token = register()
    native.resolve(token, family, address, number)
    local found, addresses = suspend()
    if not found then return false, addresses end
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

--- Listens on an IP address or host name. `backlog` may be `true` for SO_REUSEPORT.
---@param address string
---@param port integer 0 for any free one
---@param ... any backlog, callback
---@return boolean|nil ok, userdata|integer listen socket or code
function tcp.listen(address, port, ...)
  return listen_ip("listen", IP, address, port, ...)
end

--- As tcp.listen, on IPv6 only.
function tcp.listen6(address, port, ...)
  return listen_ip("listen6", IP6, address, port, ...)
end

--- Listens on a unix socket.
---@param path string
---@param callback? function
---@return boolean|nil ok, userdata|integer listen socket or code
function tcp.listens(path, ...)
  check_path(path, "listens")
  local function work() return listen_now(UNIX, path, 0, BACKLOG_DEFAULT, false) end
  if select("#", ...) == 0 then return work() end
  local callback = ...
  if type(callback) ~= "function" then bad(2, "listens", "function", callback, 3) end
  return attempt(callback, work, path)
end

-- Waits for a connection to be made; retries while a unix socket's backlog is full.
local function connect_now(family, address, port, timeout)
  local token = register()
  set_timeout(token, timeout)
  native.connect(token, family, address, port)
  local ok, value = suspend()
  if ok then return true, new_stream(value) end
  if value == TIMEOUT then native.cancel_connect(token) end
  return false, value
end

local function connect(family, address, port, timeout, callback, ...)
  if not callback then check_may_wait() end
  return attempt(callback, function()
    local deadline = timeout > 0 and native.now() + timeout
    local ok, value = connect_now(family, address, port, timeout)
    while value == AGAIN and family == UNIX do
      local left = deadline and deadline - native.now() or 0
      if deadline and left <= 0 then return false, TIMEOUT end
      core.sleep(RETRY_SECONDS)
      ok, value = connect_now(family, address, port, left)
    end
    return ok, value
  end, ...)
end

local function connect_ip(name, family, address, port, ...)
  check_address(address, name)
  local number = check_port(port, name)
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
function tcp.connect(address, port, ...)
  return connect_ip("connect", IP, address, port, ...)
end

--- As tcp.connect, to IPv6 addresses only.
function tcp.connect6(address, port, ...)
  return connect_ip("connect6", IP6, address, port, ...)
end

--- Connects to a unix socket.
---@param path string
---@param ... any timeout in seconds, callback
---@return boolean|nil ok, userdata|integer socket or code
function tcp.connects(path, ...)
  check_path(path, "connects")
  local timeout, callback, given = options("connects", 2, select("#", ...), ...)
  if given == 1 then
    return connect(UNIX, path, 0, timeout, callback, path, (...))
  end
  return connect(UNIX, path, 0, timeout, callback, path)
end

-- Options and state -------------------------------------------------------------------------------

--- Changes how frames look; see docs/api/tcp.md for the fields.
---@param socket userdata
---@param changes table
function tcp.set_rwopt(socket, changes)
  local record = check_stream(socket, "set_rwopt")
  check_open(record, SOCKET_CLOSED)
  if type(changes) ~= "table" then bad(2, "set_rwopt", "table", changes, 3) end
  local why = native.set_rwopt(
    record.id,
    changes.read_head_endian,
    changes.read_head_bytes,
    changes.read_head_max,
    changes.write_head_endian,
    changes.write_head_bytes,
    changes.write_head_max
  )
  if why then error(("bad argument #2 to 'set_rwopt' (%s)"):format(why), 2) end
end

--- How frames look: a table of six fields; empty for a closed socket.
---@param socket userdata
---@return table
function tcp.get_rwopt(socket)
  local record = check_stream(socket, "get_rwopt")
  local result = {}
  if record.closed then return result end
  result.read_head_endian, result.read_head_bytes, result.read_head_max, result.write_head_endian, result.write_head_bytes, result.write_head_max =
    native.get_rwopt(record.id)
  return result
end

--- Switches Nagle's algorithm off or on.
---@param socket userdata
---@param on boolean
function tcp.set_nodelay(socket, on)
  local record = check_stream(socket, "set_nodelay")
  if not record.closed then native.set_nodelay(record.id, on and true or false) end
end

--- An integer by which any context may write to the socket, once it is shared.
---@param socket userdata
---@return integer
function tcp.fd(socket)
  local record = check_stream(socket, "fd")
  check_open(record, SOCKET_CLOSED)
  return native.fd(record.id)
end

--- Lets other contexts write to the socket by its fd, or stops that.
---@param socket userdata
---@param on boolean
function tcp.set_wshared(socket, on)
  local record = check_stream(socket, "set_wshared")
  check_open(record, SOCKET_CLOSED)
  native.set_wshared(record.id, on and true or false)
end

--- The context that owns the socket with this fd; nil if it is closed.
---@param fd integer
---@return integer|nil
function tcp.fd_src(fd)
  if type(fd) ~= "number" then bad(1, "fd_src", "fd", fd, 3) end
  return native.fd_src(fd)
end

local function address_of(which, name)
  return function(socket)
    local record = streams[socket] or listeners[socket]
    if record == nil then bad(1, name, "tcp socket", socket, 3) end
    if record.closed then return end
    return native.address(record.id, which)
  end
end

tcp.local_addr = address_of(1, "local_addr")
tcp.local_port = address_of(2, "local_port")
tcp.remote_addr = address_of(3, "remote_addr")
tcp.remote_port = address_of(4, "remote_port")

--- Figures of a socket: bytes waiting, bounds. An empty table for a closed socket.
---@param socket userdata
---@return table
function tcp.stat(socket)
  local record = check_stream(socket, "stat")
  local result = {}
  if record.closed then return result end
  result.write_queue_bytes, result.write_queue_high, result.write_queue_max, result.read_buffered_bytes =
    native.socket_stat(record.id)
  return result
end

--- Sets how many bytes may wait to be written before the socket fails with 212.
---@param socket userdata
---@param bytes integer
function tcp.set_write_limit(socket, bytes)
  local record = check_stream(socket, "set_write_limit")
  check_open(record, SOCKET_CLOSED)
  if type(bytes) ~= "number" or not (bytes >= 0) then
    bad(2, "set_write_limit", "number of bytes", bytes, 3)
  end
  native.set_write_limit(record.id, bytes)
end

--- Closes a socket or listen socket; what was written still leaves.
---@param socket userdata
---@return boolean first true the first time
function tcp.close(socket)
  local record = streams[socket]
  if record then return close_record(record, SOCKET_CLOSED) end
  record = listeners[socket]
  if record == nil then bad(1, "close", "tcp socket", socket, 3) end
  return close_record(record, LISTENER_CLOSED)
end

--- True for a closed socket, false for an open one and for anything else.
---@param socket any
---@return boolean
function tcp.is_closed(socket)
  local record = socket ~= nil and (streams[socket] or listeners[socket])
  return record and record.closed or false
end

for _, name in ipairs({
  "read", "write", "close", "is_closed", "set_rwopt", "get_rwopt", "set_nodelay", "set_wshared",
  "set_write_limit", "fd", "stat", "local_addr", "local_port", "remote_addr", "remote_port",
}) do
  stream_methods[name] = tcp[name]
end
for _, name in ipairs({ "accept", "close", "is_closed", "local_addr", "local_port" }) do
  listener_methods[name] = tcp[name]
end
native.set_socket_methods(stream_methods, listener_methods)
