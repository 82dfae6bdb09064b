-- context.query, and what becomes of answers. Loaded when a script looks up what
-- lua/context/init.lua does not have. See docs/api/context.md.

local native, core = ...

local select, type = select, type
local bad, raise, handlers, options = core.bad, core.raise, core.handlers, core.options
local register, cancel, set_timeout = core.register, core.cancel, core.set_timeout
local suspend, call_to_wait, conclude = core.suspend, core.call_to_wait, core.conclude
local complete, defer = core.complete, core.defer
local check_target = core.check_target
local native_query = native.query

local VALUE_TYPE, TIMEOUT, QUERIES_FULL = 206, 208, 213

local context = {}

-- Tokens of queries that wait for an answer → whom they asked; and how many they are. Others know
-- them by their sessions (src/lua/sessions.rs).
local asked = {}

-- Nobody waits for the answer any more; false if that was so before.
local function forget(token)
    if asked[token] == nil then return false end
    asked[token] = nil
    core.unanswered = core.unanswered - 1
    native.forget(token)
    return true
end

local REPLY = 2

-- The answer is there.
handlers[REPLY] = function(token, ok, value)
    if asked[token] == nil then return end
    asked[token] = nil
    core.unanswered = core.unanswered - 1
    return conclude(token, ok, value)
end

-- See native.query.
local function ask(callback, h, token, value)
    if callback then return native_query(nil, nil, h, token, value) end
    return call_to_wait(native_query, h, token, value)
end

-- It cannot be asked: because of the value, or because the call cannot wait.
local function fail(why)
    if type(why) == "number" then core.refuse_wait(why) end
    raise(why)
end

--- Asks another context and waits for the answer; with a callback, does not wait.
---@param h integer
---@param value any
---@param ... any timeout in seconds, callback
---@return boolean ok, any answer or code; with a callback the session or the code
function context.query(h, ...)
    local n = select("#", ...)
    if type(h) ~= "number" or h % 1 ~= 0 then h = check_target(h, "query") end
    if n == 0 then bad(2, "query", "value") end
    local value, a, b, c = ...
    local timeout, callback, given = options("query", 3, n - 1, a, b, c)
    local entry, token
    if callback then
        entry = function(ok, result)
            forget(token)
            local text = not ok and result == VALUE_TYPE and native.explanation()
            if text then return callback(ok, result, h, value, given ~= 0 and a or nil, text) end
            if given == 0 then return callback(ok, result, h, value) end
            return callback(ok, result, h, value, a)
        end
    elseif timeout < 0 then
        return false, TIMEOUT
    end
    token = register(entry)
    if timeout < 0 then
        -- Nobody is asked.
        defer(complete, token, false, TIMEOUT)
        return true, token
    end
    local ok, session, holder = ask(callback, h, token, value)
    if session == QUERIES_FULL and not ok and native.recount(core.unanswered) then
        ok, session, holder = ask(callback, h, token, value)
    end
    if not ok then
        cancel(token)
        if ok == nil then fail(session) end
        -- What may come third is more of the failure.
        if holder then return false, session, holder end
        return false, session
    end
    asked[token] = holder or h
    core.unanswered = core.unanswered + 1
    if timeout > 0 then set_timeout(token, timeout) end
    if callback then return true, session end
    local result
    ok, result = suspend()
    forget(token)
    if not ok and result == VALUE_TYPE then
        local text = native.explanation()
        if text then return ok, result, text end
    end
    return ok, result
end

core.asked, core.forget = asked, forget

return context
