-- context: creating, asking and ending contexts. See docs/api/context.md.

local native, core = ...

local error, select, setmetatable, tonumber = error, select, setmetatable, tonumber
local tostring, type, unpack = tostring, type, unpack
local strerror = native.strerror
local bad, seconds, handlers = core.bad, core.seconds, core.handlers
local call, complete, defer = core.call, core.complete, core.defer
local register, cancel, set_timeout = core.register, core.cancel, core.set_timeout
local suspend, check_may_wait, is_waiting = core.suspend, core.check_may_wait, core.is_waiting
local hold = core.hold
local native_send, received, unreceive = native.send, native.received, native.unreceive

local NO_CONTEXT, NO_REPLY = 205, 207
local ANY = 0

local self_handle = native.self()

local context = {}

-- The part of this module that is loaded when it is asked for.
local function control()
  if not core.create_with then
    setmetatable(context, nil)
    native.load("internal/control")(native, core, context)
  end
  return core
end

-- The argument lists "h, v[, timeout][, callback]": which of the optional ones are there.
local function options(name, position, n, a, b)
  if n == 0 then return 0, nil, 0 end
  if n == 1 and type(a) == "function" then return 0, a, 0 end
  local timeout = seconds(a, position, name)
  if n == 1 then return timeout, nil, 1 end
  if type(b) ~= "function" or n > 2 then
    if n > 2 then error(("too many arguments to '%s'"):format(name), 3) end
    bad(position + 1, name, "function", b)
  end
  return timeout, b, 1
end

local function check_handle(h, position, name)
  local number = type(h) == "string" and tonumber(h) or h
  if type(number) ~= "number" then bad(position, name, "context handle", h) end
  return number
end

-- Messages ----------------------------------------------------------------------------------------

-- Who receives messages, by sender (ANY for all): a queue of waiting tokens, and a callback.
local receivers = {}

-- Messages nobody receives yet, by arrival; and for each sender the arrivals that are his.
local mail = {}
local mail_first, mail_last = 1, 0
local mail_from = {}

local function next_waiter(r)
  local first, last = r.first, r.last
  while first <= last do
    local token = r[first]
    if is_waiting(token) then
      r.first = first
      return token
    end
    r[first] = nil
    first = first + 1
  end
  r.first, r.last = 1, 0
end

-- Hands a message to whoever waits for it; false if nobody does.
local function hand_over(r, from, session, value, handle)
  if r == nil then return false end
  local token = next_waiter(r)
  if token then
    r[r.first] = nil
    r.first = r.first + 1
    complete(token, true, value, from, session)
    return true
  end
  if r.callback then
    call(r.callback, true, value, from, session, handle)
    return true
  end
  return false
end

-- Queries of this context to itself among the kept mail.
local own_queries = 0

local function keep(from, session, value)
  unreceive()
  if from == self_handle and session > 0 then own_queries = own_queries + 1 end
  mail_last = mail_last + 1
  mail[mail_last] = { from, session, value }
  local own = mail_from[from]
  if not own then
    own = { first = 1, last = 0 }
    mail_from[from] = own
  end
  own.last = own.last + 1
  own[own.last] = mail_last
end

-- The oldest kept message from `h` (or from anybody), taken out.
local function take_mail(h)
  if mail_first > mail_last then return end
  local at
  if h == ANY then
    at = mail_first
    while mail[at] == nil do at = at + 1 end
  else
    local own = mail_from[h]
    if not own then return end
    while own.first <= own.last and mail[own[own.first]] == nil do
      own[own.first] = nil
      own.first = own.first + 1
    end
    if own.first > own.last then
      mail_from[h] = nil
      return
    end
    at = own[own.first]
  end
  local message = mail[at]
  mail[at] = nil
  local own = mail_from[message[1]]
  if own and own[own.first] == at then
    own[own.first] = nil
    own.first = own.first + 1
    if own.first > own.last then mail_from[message[1]] = nil end
  end
  while mail_first <= mail_last and mail[mail_first] == nil do mail_first = mail_first + 1 end
  if mail_first > mail_last then mail_first, mail_last = 1, 0 end
  received()
  if message[1] == self_handle and message[2] > 0 then own_queries = own_queries - 1 end
  return message
end

-- Called when a turn has nothing left to do. If all that keeps the context alive are its own
-- queries to itself, nobody will ever receive them: they get "no reply".
function core.break_deadlock(alive)
  if own_queries == 0 or own_queries < alive then return false end
  for _ = 1, own_queries do
    local message = take_mail(self_handle)
    if message[2] > 0 then complete(message[2], false, NO_REPLY) end
  end
  return true
end

-- Gives kept mail to a callback that has just been set, for as long as it stays.
local function drain(h)
  local r = receivers[h]
  while r and r.callback do
    local message = take_mail(h)
    if not message then return end
    hand_over(r, message[1], message[2], message[3], h)
  end
end

handlers[1] = function(from, session, value)
  local own = receivers[from]
  local any = receivers[ANY]
  if
    not hand_over(own, from, session, value, from)
    and not hand_over(any, from, session, value, ANY)
  then
    keep(from, session, value)
  end
end

local function receiver(h)
  local r = receivers[h]
  if not r then
    r = { first = 1, last = 0 }
    receivers[h] = r
  end
  return r
end

local function forget_receiver(h, r)
  if not r.callback and not next_waiter(r) then receivers[h] = nil end
end

--- Receives a message from `h`, or from anybody if `h` is 0. With a callback: every message, until
--- the callback is replaced, or removed with nil.
---@param h integer
---@param how? number|function timeout in seconds, or callback
---@return boolean|nil ok, any value, integer from, integer session
function context.recv(h, ...)
  h = check_handle(h, 1, "recv")
  local n = select("#", ...)
  local how = ...
  if n > 1 then error("too many arguments to 'recv'", 2) end
  if n == 1 and (how == nil or type(how) == "function") then
    local r = receiver(h)
    if (r.callback == nil) ~= (how == nil) then hold(how and 1 or -1) end
    r.callback = how
    if how then
      if mail_first <= mail_last then defer(drain, h) end
    else
      forget_receiver(h, r)
    end
    return
  end
  local timeout = n == 1 and seconds(how, 2, "recv") or 0
  check_may_wait()
  local message = take_mail(h)
  if message then return true, message[3], message[1], message[2] end
  local r = receiver(h)
  local token = register()
  r.last = r.last + 1
  r[r.last] = token
  set_timeout(token, timeout)
  local ok, value, from, session = suspend()
  if not r.callback and r.first > r.last and receivers[h] == r then receivers[h] = nil end
  if not ok then return false, value, 0, -1 end
  return true, value, from, session
end

-- Raises for what cannot be sent, at the caller of the API function.
local function check_sent(ok, why)
  if ok == nil then error(why, 3) end
  if ok then return true end
  return false, why
end

--- Sends a value; never waits.
---@param h integer
---@param value any
---@return boolean ok, integer|nil code
function context.send(h, ...)
  if select("#", ...) ~= 1 then
    error("bad arguments to 'send' (a handle and one value expected)", 2)
  end
  return check_sent(native_send(check_handle(h, 1, "send"), 0, (...)))
end

-- Queries -----------------------------------------------------------------------------------------

-- Sessions of queries that wait for an answer → whom they asked; and how many they are.
local asked = {}
core.unanswered = 0

-- The answer is there, or nobody waits for it any more; false if that was so before.
local function forget(session)
  if asked[session] == nil then return false end
  asked[session] = nil
  core.unanswered = core.unanswered - 1
  return true
end

handlers[2] = function(session, ok, value)
  if forget(session) then complete(session, ok, value) end
end

--- Asks another context and waits for the answer; with a callback, does not wait.
---@param h integer
---@param value any
---@param ... any timeout in seconds, callback
---@return boolean ok, any answer or code; with a callback the session or the code
function context.query(h, ...)
  local n = select("#", ...)
  if n == 0 then error("bad arguments to 'query' (a handle and a value expected)", 2) end
  h = check_handle(h, 1, "query")
  local value, a, b = ...
  local timeout, callback, given = options("query", 3, n - 1, a, b)
  local entry, session
  if callback then
    entry = function(ok, result)
      forget(session)
      if given == 0 then return callback(ok, result, h, value) end
      return callback(ok, result, h, value, a)
    end
  else
    check_may_wait()
  end
  session = register(entry)
  local ok, why = native_send(h, session, value)
  if not ok then
    cancel(session)
    if ok == nil then error(why, 2) end
    return false, why
  end
  asked[session] = h
  core.unanswered = core.unanswered + 1
  if timeout > 0 then set_timeout(session, timeout) end
  if callback then return true, session end
  local result
  ok, result = suspend()
  forget(session)
  return ok, result
end

--- Answers a query. What cannot be sent raises, and the asker gets 206.
---@param h integer
---@param session integer
---@param value any
---@return boolean ok, integer|nil code
function context.reply(h, session, ...)
  if select("#", ...) ~= 1 then
    error("bad arguments to 'reply' (a handle, a session and one value expected)", 2)
  end
  h = check_handle(h, 1, "reply")
  if type(session) ~= "number" then bad(2, "reply", "session", session, 3) end
  local ok, why = native.reply(h, session, (...))
  return check_sent(ok, why)
end

-- Ends --------------------------------------------------------------------------------------------

local waits = {} -- handle → tokens

-- A context that was watched, or asked, has ended.
handlers[7] = function(h, reason, detail)
  local tokens = waits[h]
  if tokens then
    waits[h] = nil
    for i = 1, #tokens do complete(tokens[i], true, 0) end
  end
  local unanswered
  for session, target in pairs(asked) do
    if target == h then
      unanswered = unanswered or {}
      unanswered[#unanswered + 1] = session
    end
  end
  if unanswered then
    table.sort(unanswered)
    for i = 1, #unanswered do
      forget(unanswered[i])
      complete(unanswered[i], false, NO_REPLY)
    end
  end
  if core.on_end then core.on_end(h, reason, detail) end
end

local function remove_wait(h, token)
  local tokens = waits[h]
  if not tokens then return end
  for i = 1, #tokens do
    if tokens[i] == token then
      table.remove(tokens, i)
      break
    end
  end
  if #tokens == 0 then waits[h] = nil end
end

--- Waits until another context ends; with a callback, does not wait.
---@param h integer
---@param ... any timeout in seconds, callback; or nil, which removes the callbacks
---@return boolean|nil ok, integer|nil code
function context.wait(h, ...)
  h = check_handle(h, 1, "wait")
  local n = select("#", ...)
  local a, b = ...
  if h == ANY or h == self_handle then
    error(("bad argument #1 to 'wait' (%s: a context cannot wait for itself)"):format(h), 2)
  end
  if n == 1 and a == nil then
    local tokens = waits[h] or {}
    local kept = {}
    for i = 1, #tokens do
      if core.is_callback(tokens[i]) then
        cancel(tokens[i])
      else
        kept[#kept + 1] = tokens[i]
      end
    end
    waits[h] = kept[1] and kept or nil
    return
  end
  local timeout, callback, given = options("wait", 2, n, a, b)
  local token
  if callback then
    token = register(function(ok, code)
      remove_wait(h, token)
      if given == 0 then return callback(ok, code, h) end
      return callback(ok, code, h, a)
    end)
  else
    check_may_wait()
  end
  if not native.watch(h) then
    if not callback then return false, NO_CONTEXT end
    defer(complete, token, false, NO_CONTEXT)
    return
  end
  token = token or register()
  local tokens = waits[h]
  if not tokens then
    tokens = {}
    waits[h] = tokens
  end
  tokens[#tokens + 1] = token
  set_timeout(token, timeout)
  if callback then return end
  local ok, code = suspend()
  if not ok then remove_wait(h, token) end
  return ok, code
end

--- Ends another context, or with nil, a reason, or nothing the caller's own, once it next waits.
---@param h? integer
---@param reason? string
function context.destroy(h, reason)
  if h == nil or type(h) == "string" and tonumber(h) == nil then
    native.destroy_self()
    return
  end
  if reason ~= nil and type(reason) ~= "string" then bad(2, "destroy", "string", reason, 3) end
  native.destroy(check_handle(h, 1, "destroy"), reason)
end

--- Creates a context that runs a file. Returns its handle at once. In place of the file's name a
--- table may give options too.
---@param file string|table
---@param ... any
---@return integer handle
function context.create(file, ...)
  local handle, why
  if type(file) == "table" then
    handle, why = control().create_with(file, ...)
  else
    if type(file) ~= "string" then bad(1, "create", "file name", file, 3) end
    handle, why = native.create(file, package.path, package.cpath, nil, ...)
  end
  if handle == nil then error(why, 2) end
  return handle
end

--- Calls f(...) in a coroutine of its own, on the next turn.
---@param f function
---@param ... any
function context.run(f, ...)
  if type(f) ~= "function" then bad(1, "run", "function", f, 3) end
  hold(1)
  local n, arguments = select("#", ...), { ... }
  defer(function()
    hold(-1)
    call(f, unpack(arguments, 1, n))
  end)
end

--- Writes the arguments, as text, to the log.
---@param ... any
function context.log(...)
  local words = {}
  for i = 1, select("#", ...) do words[i] = tostring((select(i, ...))) end
  native.log(table.concat(words, "\t"))
end

--- This context's handle.
---@return integer
function context.self()
  return self_handle
end

--- The handle of the context that created this one; nil in the first.
---@return integer|nil
function context.parent()
  return native.parent() or nil
end

--- Names this context if given a string; otherwise returns the name of a context, nil if none.
---@param which? string|integer
---@return string|nil
function context.name(which)
  if type(which) == "string" and tonumber(which) == nil then
    native.set_name(which)
    return which
  end
  return native.get_name(which == nil and self_handle or check_handle(which, 1, "name")) or nil
end

context.ncpu = native.ncpu
context.thread = native.thread

--- The text of a failure code.
---@param code integer
---@return string
function context.strerror(code)
  if type(code) ~= "number" then bad(1, "strerror", "number", code, 3) end
  return strerror(code)
end

core.options = options

-- Most contexts never ask for the rest.
setmetatable(context, {
  __index = function(_, name)
    control()
    return context[name]
  end,
})

return context
