-- The rest of module context: creating, naming and ending contexts, and waiting for their end.
-- Loaded when a script looks up the first of these. See docs/api/context.md.

local native, core = ...

local ipairs, select, tonumber = ipairs, select, tonumber
local pairs, tostring, type, unpack = pairs, tostring, type, unpack
local concat, sort = table.concat, table.sort
local package = package
local bad, raise, handlers, options = core.bad, core.raise, core.handlers, core.options
local call, complete, defer = core.call, core.complete, core.defer
local register, cancel, set_timeout = core.register, core.cancel, core.set_timeout
local suspend, check_may_wait, hold = core.suspend, core.check_may_wait, core.hold
local is_waiting = core.is_waiting
local check_handle, check_target = core.check_handle, core.check_target
local asked, forget = core.asked, core.forget

local NO_CONTEXT, NO_REPLY, TIMEOUT, CLUSTER_AWAY = 205, 207, 208, 231
local ANY = 0
local NAME_MAX = 253
local PATH_MAX = 4095 -- what the system takes

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

-- What is loaded when it is asked for: monitors, figures, creation with options.
local controls = {}
local function control()
    if not core.create_with then native.load("context/create")(native, core, controls) end
    return controls
end

core.control = control

for _, name in ipairs({ "monitor", "on_error", "stat" }) do
    context[name] = function(...) return control()[name](...) end
end

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
    if h == ANY or h == self_handle then bad(1, "wait", "handle of another context", h) end
    if n == 1 and a == nil then
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
    if reason ~= nil and type(reason) ~= "string" then bad(2, "destroy", "string", reason) end
    if h == nil or type(h) == "string" and tonumber(h) == nil then
        if h ~= nil and reason ~= nil then
            bad(1, "destroy", "context handle, as context.find gives it for a name,", h)
        end
        native.destroy_self(h or reason)
        core.stop_timers()
        return
    end
    if native.destroy(check_handle(h, 1, "destroy"), reason) then core.stop_timers() end
end

-- Where modules of a new context are found: where those of this one are, but that who cannot read
-- files does not choose it (context/confine.lua).
local function get_paths()
    if native.module_path then return native.module_path, "" end
    return package.path, package.cpath
end

--- Creates a context that runs a file. Returns its handle at once. In place of the file's name a
--- table may give options too.
---@param file string|table
---@param ... any
---@return integer handle
function context.create(file, ...)
    local handle, why
    local path, cpath = get_paths()
    if type(file) == "table" then
        control()
        handle, why = core.create_with(file, path, cpath, ...)
    else
        if type(file) ~= "string" then bad(1, "create", "file name", file) end
        if #file > PATH_MAX then
            bad(1, "create", "file name of at most " .. PATH_MAX .. " bytes", file)
        end
        handle, why = native.create(file, path, cpath, nil, ...)
    end
    if handle == nil then raise(why) end
    return handle
end

--- Calls f(...) in a coroutine of its own, on the next turn.
---@param f function
---@param ... any
function context.run(f, ...)
    if type(f) ~= "function" then bad(1, "run", "function", f) end
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
    for i = 1, select("#", ...) do
        local word = tostring((select(i, ...)))
        if type(word) ~= "string" then raise("'tostring' must return a string to 'log'") end
        words[i] = word
    end
    native.log(concat(words, "\t"))
end

--- Names this context if given a string; otherwise returns the name of a context, nil if none.
---@param which? string|integer
---@return string|nil
function context.name(which)
    if type(which) == "string" and tonumber(which) == nil then
        if which == "" or #which > NAME_MAX then
            bad(1, "name", "name of 1 to " .. NAME_MAX .. " bytes", which)
        end
        native.set_name(which)
        return which
    end
    return native.get_name(which == nil and self_handle or check_handle(which, 1, "name")) or nil
end

context.ncpu = native.ncpu
context.thread = native.thread

--- Returns what follows a leading true; raises the text of the failure otherwise.
---@param ... any the results of a call
---@return any ...
function context.check(ok, ...)
    if ok == true then return ... end
    local code, text = ...
    if ok == false and type(code) == "number" then
        if type(text) == "string" then raise(text) end
        text = native.strerror(code)
        raise(text == native.strerror(-1) and text .. " " .. code or text)
    end
    -- As io.open and many libraries have it.
    if not ok and type(code) == "string" then raise(code) end
    if ok == false then bad(2, "check", "code of the failure", code) end
    bad(1, "check", "true or false, as a call has returned it,", ok)
end

--- The text of a failure code.
---@param code integer
---@return string
function context.strerror(code)
    if type(code) ~= "number" then bad(1, "strerror", "number", code) end
    return native.strerror(code)
end

core.create, core.destroy, core.wait = context.create, context.destroy, context.wait

return context
