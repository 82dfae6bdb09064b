-- context: sending, asking and receiving. See docs/api/context.md.
--
-- What many contexts never use is loaded when it is looked up, in the order of lua/init.lua; and
-- context/unclaimed.lua with the first message that nobody waits for.

local native, core = ...

local next, select, tonumber, type = next, select, tonumber, type
local bad = core.bad
local timeout_of, handlers = core.timeout_of, core.handlers
local begin_serving, complete, defer = core.begin_serving, core.complete, core.defer
local register, set_timeout = core.register, core.set_timeout
local suspend, check_may_wait, is_waiting = core.suspend, core.check_may_wait, core.is_waiting
local call_to_wait, hold, take_query = core.call_to_wait, core.hold, core.take_query
local next_message = native.next_message

local ANY = 0
local TIMEOUT = 208

local context = {}

-- The argument lists "h, v[, timeout][, callback]": which of the optional ones are there.
local function options(name, position, n, a, b, c)
    if n == 0 then return 0, nil, 0 end
    if n == 1 and type(a) == "function" then return 0, a, 0 end
    if type(a) == "function" then bad(position + 1, name, nil, b) end
    local timeout = timeout_of(a, position, name)
    if n == 1 then return timeout, nil, 1 end
    if type(b) ~= "function" then bad(position + 1, name, "function", b) end
    if n > 2 then bad(position + 2, name, nil, c) end
    return timeout, b, 1
end

-- A handle, maybe one that nobody has; but not half of one. Where `expected` says so, or a name.
local function check_handle(h, position, name, expected)
    local number = type(h) == "string" and tonumber(h) or h
    if type(number) ~= "number" or number % 1 ~= 0 then
        bad(position, name, expected or "context handle", h)
    end
    return number
end

-- The same, or the name of whoever answers under it.
local function check_target(h, name)
    if type(h) == "string" and not tonumber(h) then return h end
    return check_handle(h, 1, name, "context handle or name")
end

-- Messages ----------------------------------------------------------------------------------------

-- Who receives messages, by sender (ANY for all): a queue of waiting tokens, and a callback.
local receivers = {}

-- Messages nobody receives yet: what context/unclaimed.lua returns, loaded with the first of them.
local mail

-- What is above are upvalues of what is below: see prelude.rs.

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
        if r.over then r.over = r.over - 1 end
    end
    r.first, r.last = 1, 0
    if r.over then r.over = nil end
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

local function keep(from, session, value)
    mail = mail or native.load("context/unclaimed")(native, core, receivers, hand_over_waiting)
    return mail.keep(from, session, value)
end

local MESSAGE, ENDED = 1, 7

handlers[MESSAGE] = function(from, session, value)
    local r, handle = receivers[from], from
    if r == nil then
        r, handle = receivers[ANY], ANY
        if r == nil then return keep(from, session, value) end
    elseif handle ~= ANY then
        if hand_over_waiting(r, from, session, value) then return end
        if r.callback then
            if session > 0 then begin_serving(from, session) end
            return r.callback(true, value, from, session, handle)
        end
        r, handle = receivers[ANY], ANY
        if r == nil then return keep(from, session, value) end
    end
    if hand_over_waiting(r, from, session, value) then return end
    if r.callback then
        if session > 0 then begin_serving(from, session) end
        return r.callback(true, value, from, session, handle)
    end
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

-- The time of a waiter is over: it stays in its queue, to be passed over, until such are half of
-- it. So many whose time is over at once cost each the same.
local function drop_waiter(r, token)
    local first, last = r.first, r.last
    if first > last then return end
    if r[first] == token then
        r[first] = nil
        r.first = first + 1
        return
    end
    local over = (r.over or 0) + 1
    r.over = over
    if 2 * over <= last - first + 1 then return end
    local at = first - 1
    for i = first, last do
        local other = r[i]
        r[i] = nil
        if is_waiting(other) then
            at = at + 1
            r[at] = other
        end
    end
    r.last, r.over = at, nil
end
core.next_waiter, core.drop_waiter = next_waiter, drop_waiter

--- Receives a message from `h`, or from anybody if `h` is 0. With a callback: every message, until
--- the callback is replaced, or removed with nil.
---@param h integer
---@param how? number|function timeout in seconds, or callback
---@return boolean|nil ok, any value, integer from, integer session
function context.recv(h, ...)
    h = check_handle(h, 1, "recv")
    -- From what can be no handle nothing would ever come.
    if h < 0 or h >= 2 ^ 53 then bad(1, "recv", "context handle", h) end
    local n = select("#", ...)
    local how, more = ...
    if n > 1 then bad(3, "recv", nil, more) end
    if n == 1 and (type(how) == "nil" or type(how) == "function") then
        local r = receiver(h)
        if (r.callback == nil) ~= (type(how) == "nil") then hold(how and 1 or -1) end
        r.callback = how
        if how then
            if mail and mail.first <= mail.last then defer(mail.drain, h) end
        else
            forget_receiver(h, r)
        end
        return
    end
    local timeout = n == 1 and timeout_of(how, 2, "recv") or 0
    if timeout < 0 then return false, TIMEOUT end
    if mail and mail.first <= mail.last then
        check_may_wait()
        local message = mail.take(h)
        if message then
            if message[2] > 0 then take_query(message[1], message[2]) end
            return true, message[3], message[1], message[2]
        end
    end
    if next(receivers) == nil then
        -- Whatever message comes next is ours: it need not take the way through the dispatcher.
        local from, session, value = call_to_wait(next_message, h)
        if from then
            if session > 0 then take_query(from, session) end
            return true, value, from, session
        end
        if session then core.refuse_wait(session) end
    else
        check_may_wait()
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
    if session > 0 then take_query(from, session) end
    return true, value, from, session
end

--- Sends a value; never waits.
---@param h integer
---@param value any
---@return boolean ok, integer|nil code
context.send = native.send

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
core.check_target = check_target
core.unanswered = 0

-- A context that was watched, or asked, has ended: the handler is with the rest.
handlers[ENDED] = function(h, reason, detail)
    core.load_all(context)
    return handlers[ENDED](h, reason, detail)
end

return context
