-- Sockets as the Lua side keeps them: who waits on which, and who is called back.

local native, core = ...

local error, setmetatable = error, setmetatable
local strerror = native.strerror
local bad, complete, defer, hold = core.bad, core.complete, core.defer, core.hold
local register, set_timeout = core.register, core.set_timeout
local suspend, is_waiting = core.suspend, core.is_waiting
local drop_waiter = core.drop_waiter

local TIMEOUT = 208

-- Records of sockets: id, closed, callback, and the tokens of who waits from `first` to `last`.
-- A record holds its socket in `anchor` while somebody waits, so that the collector spares it.
local streams = setmetatable({}, { __mode = "k" })
local listeners = setmetatable({}, { __mode = "k" })
local by_id = setmetatable({}, { __mode = "v" })

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

local function new_listener(id)
  return new_socket(listeners, id)
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

-- A wait is over. If its time was up, the socket must not be held on its behalf any more.
local function settle(record, token, ok, value)
  if not ok and value == TIMEOUT then
    drop_waiter(record, token)
    release_anchor(record)
  end
  return ok, value
end

-- Blocks the running root on a socket.
local function wait_on(socket, record, timeout)
  local token = register()
  record.last = record.last + 1
  record[record.last] = token
  record.anchor = socket
  set_timeout(token, timeout)
  return settle(record, token, suspend())
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

return {
  streams = streams,
  listeners = listeners,
  by_id = by_id,
  check_stream = check_stream,
  check_listener = check_listener,
  check_open = check_open,
  new_stream = new_stream,
  new_listener = new_listener,
  next_waiter = next_waiter,
  take_waiter = take_waiter,
  release_anchor = release_anchor,
  wait_on = wait_on,
  set_callback = set_callback,
  close_record = close_record,
}
