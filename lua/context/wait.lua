-- Ending contexts, and waiting for their end. Loaded when a script looks up the first of these, or
-- of context/create.lua. See docs/api/context.md.

local native, core = ...

local pairs, select, tonumber, type = pairs, select, tonumber, type
local sort = table.sort
local bad, handlers, options = core.bad, core.handlers, core.options
local complete, defer = core.complete, core.defer
local register, cancel, set_timeout = core.register, core.cancel, core.set_timeout
local suspend, check_may_wait = core.suspend, core.check_may_wait
local is_waiting = core.is_waiting
local check_handle, check_target = core.check_handle, core.check_target
local asked, forget = core.asked, core.forget

local NO_CONTEXT, NO_REPLY, TIMEOUT, CLUSTER_AWAY = 205, 207, 208, 231
local ANY = 0

local self_handle = native.self()

local context = {}

-- The handle of a target whose end is waited for. If nobody answers under the name: -1, which no
-- context has, and what is said of it.
local function find_target(h, name)
    h = check_target(h, name)
    if type(h) ~= "string" then return h end
    local found, code, text = native.find_watched(h)
    return found or -1, code, text
end
core.find_target = find_target

-- Handle → tokens, oldest first, with how many there are, and how many of them are over: those stay
-- until they are half of them, so that many whose time is over at once cost each the same.
local waits = {}

-- Tokens of open queries by whom they asked, so that many ends at once do not each look through
-- all queries. Made, and brought up to date, when somebody ends: asking costs nothing for it.
local index = {}
local indexed = 0 -- the last token that it knows
local listed = 0 -- how many tokens are in it, answered ones included

local function list(token, h)
    local tokens = index[h]
    if not tokens then
        tokens = {}
        index[h] = tokens
    end
    tokens[#tokens + 1] = token
    listed = listed + 1
end

-- The tokens of queries that asked `h`, oldest first; nil if there are none.
local function unanswered_by(h)
    local last, open = core.last_token(), core.unanswered
    if last - indexed > open or listed > 2 * open then
        index, listed = {}, 0
        for token, target in pairs(asked) do
            list(token, target)
        end
    else
        for token = indexed + 1, last do
            if asked[token] then list(token, asked[token]) end
        end
    end
    indexed = last
    local tokens = index[h]
    if tokens then
        index[h] = nil
        listed = listed - #tokens
        sort(tokens)
    end
    return tokens
end

local ENDED = 7

-- A context that was watched, or asked, has ended.
handlers[ENDED] = function(h, reason, detail)
    local tokens = waits[h]
    if tokens then
        waits[h] = nil
        for i = 1, tokens.n do
            complete(tokens[i], true, 0)
        end
    end
    local unanswered = unanswered_by(h)
    for i = 1, unanswered and #unanswered or 0 do
        if forget(unanswered[i]) then complete(unanswered[i], false, NO_REPLY) end
    end
    if core.on_end then core.on_end(h, reason, detail) end
end

local function add_wait(h, token)
    local tokens = waits[h]
    if not tokens then
        tokens = { n = 0, over = 0 }
        waits[h] = tokens
    end
    tokens.n = tokens.n + 1
    tokens[tokens.n] = token
end

-- Leaves those tokens that are still waited for.
local function tidy(h, tokens)
    local kept = 0
    for i = 1, tokens.n do
        local token = tokens[i]
        tokens[i] = nil
        if is_waiting(token) then
            kept = kept + 1
            tokens[kept] = token
        end
    end
    tokens.n, tokens.over = kept, 0
    if kept == 0 then waits[h] = nil end
end

-- One of them is over.
local function remove_wait(h)
    local tokens = waits[h]
    if not tokens then return end
    tokens.over = tokens.over + 1
    if 2 * tokens.over > tokens.n then tidy(h, tokens) end
end

--- Waits until another context ends; with a callback, does not wait.
---@param h integer
---@param ... any timeout in seconds, callback; or nil, which removes the callbacks
---@return boolean|nil ok, integer|nil code
function context.wait(h, ...)
    local given_handle = h
    local code, text
    h, code, text = find_target(h, "wait")
    -- In a cluster names come and go by themselves.
    if h == -1 and (code == CLUSTER_AWAY or given_handle ~= -1 and native.node()) then
        local last, callback = select("#", ...), nil
        if last > 0 then callback = select(last, ...) end
        if type(callback) ~= "function" then
            if text then return false, code, text end
            return false, code
        end
        defer(callback, false, code, given_handle)
        return
    end
    -- Waiting for a name that nobody has is a mistake, as is waiting for oneself.
    if h == -1 and given_handle ~= -1 then
        bad(1, "wait", "context handle, or name that a context has registered,", given_handle)
    end
    if type(given_handle) ~= "string" or tonumber(given_handle) then given_handle = h end
    local n = select("#", ...)
    local a, b = ...
    if h == ANY or h == self_handle then
        bad(1, "wait", "handle of another context", given_handle)
    end
    if n == 1 and type(a) == "nil" then
        local tokens = waits[h]
        if not tokens then return end
        for i = 1, tokens.n do
            if type(core.pending[tokens[i]]) == "function" then cancel(tokens[i]) end
        end
        tidy(h, tokens)
        return
    end
    local timeout, callback, given = options("wait", 2, n, a, b, (select(3, ...)))
    local token
    if callback then
        token = register(function(ok, result)
            remove_wait(h)
            if given == 0 then return callback(ok, result, given_handle) end
            return callback(ok, result, given_handle, a)
        end)
    elseif timeout < 0 then
        return false, TIMEOUT
    else
        check_may_wait()
    end
    if timeout < 0 then
        defer(complete, token, false, TIMEOUT)
        return
    end
    if not native.watch(h) then
        if not callback then return false, NO_CONTEXT end
        defer(complete, token, false, NO_CONTEXT)
        return
    end
    token = token or register()
    add_wait(h, token)
    set_timeout(token, timeout)
    if callback then return end
    local ok
    ok, code = suspend()
    if not ok then remove_wait(h) end
    return ok, code
end

--- Ends another context, or with nil, a reason, or nothing the caller's own, once it next waits.
---@param h? integer
---@param reason? string
function context.destroy(h, reason, ...)
    core.no_more(3, "destroy", ...)
    if type(reason) ~= "nil" and type(reason) ~= "string" then
        bad(2, "destroy", "string", reason)
    end
    if type(h) == "nil" or type(h) == "string" and tonumber(h) == nil then
        if type(h) ~= "nil" and type(reason) ~= "nil" then
            bad(1, "destroy", "context handle, as context.find gives it for a name,", h)
        end
        native.destroy_self(h or reason)
        core.stop_timers()
        return
    end
    if native.destroy(check_handle(h, 1, "destroy"), reason) then core.stop_timers() end
end

core.destroy, core.wait = context.destroy, context.wait

return context
