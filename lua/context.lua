-- context: sending, asking and receiving. See docs/api/context.md.
--
-- What most contexts never call is in internal/lifetime.lua.

local native, core = ...

local error, next, select, tonumber, type = error, next, select, tonumber, type
local bad, seconds, handlers = core.bad, core.seconds, core.handlers
local call, complete, defer = core.call, core.complete, core.defer
local register, cancel, set_timeout = core.register, core.cancel, core.set_timeout
local suspend, check_may_wait, is_waiting = core.suspend, core.check_may_wait, core.is_waiting
local conclude, hold = core.conclude, core.hold
local native_query, next_message = native.query, native.next_message

local NO_REPLY, QUERIES_FULL = 207, 213
local ANY = 0

local self_handle = native.self()

local context = {}

-- The argument lists "h, v[, timeout][, callback]": which of the optional ones are there.
local function options(name, position, n, a, b)
  if n == 0 then return 0, nil, 0 end
  if n == 1 and type(a) == "function" then return 0, a, 0 end
  local timeout = seconds(a, position, name, 4)
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

-- Hands a message to the coroutine that has waited longest; false if none does.
local function hand_over_waiting(r, from, session, value)
  if r.first > r.last then return false end
  local token = next_waiter(r)
  if not token then return false end
  r[r.first] = nil
  r.first = r.first + 1
  complete(token, true, value, from, session)
  return true
end

-- Queries of this context to itself among the kept mail.
local own_queries = 0

local take_mail, break_deadlock

local function keep(from, session, value)
  native.unreceive()
  if from == self_handle and session > 0 then
    own_queries = own_queries + 1
    core.break_deadlock = break_deadlock
  end
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
function take_mail(h)
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
  native.received()
  if message[1] == self_handle and message[2] > 0 then own_queries = own_queries - 1 end
  return message
end

-- Called when a turn has nothing left to do. If all that keeps the context alive are its own
-- queries to itself, nobody will ever receive them: they get "no reply".
function break_deadlock(alive)
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
    if not hand_over_waiting(r, message[1], message[2], message[3]) then
      call(r.callback, true, message[3], message[1], message[2], h)
    end
  end
end

handlers[1] = function(from, session, value)
  local r, handle = receivers[from], from
  if r == nil then
    r, handle = receivers[ANY], ANY
    if r == nil then return keep(from, session, value) end
  elseif handle ~= ANY then
    if hand_over_waiting(r, from, session, value) then return end
    if r.callback then return r.callback(true, value, from, session, handle) end
    r, handle = receivers[ANY], ANY
    if r == nil then return keep(from, session, value) end
  end
  if hand_over_waiting(r, from, session, value) then return end
  if r.callback then return r.callback(true, value, from, session, handle) end
  return keep(from, session, value)
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
  if not r.callback and receivers[h] == r and not next_waiter(r) then receivers[h] = nil end
end

-- Takes a waiter whose time is over out of its queue; those behind it move up.
local function drop_waiter(r, token)
  local at, last = r.first, r.last
  while at <= last and r[at] ~= token do at = at + 1 end
  if at > last then return end
  if at == r.first then
    r[at] = nil
    r.first = at + 1
    return
  end
  for i = at, last do r[i] = r[i + 1] end
  r.last = last - 1
end
core.next_waiter, core.drop_waiter = next_waiter, drop_waiter

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
  if mail_first <= mail_last then
    local message = take_mail(h)
    if message then return true, message[3], message[1], message[2] end
  end
  if next(receivers) == nil then
    -- Whatever message comes next is ours: it need not take the way through the dispatcher.
    local from, session, value = next_message(h)
    if from then return true, value, from, session end
  end
  local r = receiver(h)
  local token = register()
  r.last = r.last + 1
  r[r.last] = token
  set_timeout(token, timeout)
  local ok, value, from, session = suspend()
  if not ok then drop_waiter(r, token) end
  forget_receiver(h, r)
  if not ok then return false, value, 0, -1 end
  return true, value, from, session
end

--- Sends a value; never waits.
---@param h integer
---@param value any
---@return boolean ok, integer|nil code
context.send = native.send

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
  if forget(session) then return conclude(session, ok, value) end
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
  local ok, why = native_query(h, session, value)
  if why == QUERIES_FULL and native.recount(core.unanswered) then
    ok, why = native_query(h, session, value)
  end
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
context.reply = native.reply

--- This context's handle.
---@return integer
context.self = native.self

--- The handle of the context that created this one; nil in the first.
---@return integer|nil
context.parent = native.parent

core.options, core.check_handle = options, check_handle
core.asked, core.forget = asked, forget
core.context = context
local load_rest = core.lazy(context, "internal/lifetime")

-- A context that was watched, or asked, has ended: the handler is with the rest.
handlers[7] = function(h, reason, detail)
  load_rest()
  return handlers[7](h, reason, detail)
end

return context
