-- Signals that a script reacts to, and the end of the process. Loaded when a script looks up the
-- first of these. See docs/api/context.md.

local native, core = ...

local pcall, select, type = pcall, select, type
local bad, raise, no_more = core.bad, core.raise, core.no_more
local handlers, hold = core.handlers, core.hold
local check_may_wait, suspend = core.check_may_wait, core.suspend

local NAMES = { HUP = true, USR1 = true, USR2 = true, INT = true, TERM = true }

local context = {}
local callbacks = {} -- name → function

local SIGNAL = 12

-- A signal has come.
handlers[SIGNAL] = function(name)
    local callback = callbacks[name]
    if callback then return callback(name) end
    if core.interrupt then return core.interrupt() end -- see core/lines.lua
end

--- Has callback(name) called whenever the process gets a signal: "HUP", "USR1", "USR2", "INT" or
--- "TERM"; with nil, not any more.
---@param name string
---@param ... function|nil
function context.on_signal(name, ...)
    local callback = ...
    no_more(3, "on_signal", select(2, ...))
    if not NAMES[name] then bad(1, "on_signal", '"HUP", "USR1", "USR2", "INT" or "TERM"', name) end
    if type(callback) ~= "function" and (type(callback) ~= "nil" or select("#", ...) == 0) then
        bad(2, "on_signal", "function or nil", ...)
    end
    local ok, why = native.hear(name, type(callback) ~= "nil")
    if not ok then raise("on_signal: " .. why) end
    -- A registered callback keeps the context alive.
    if callback and not callbacks[name] then hold(1) end
    if callbacks[name] and not callback then hold(-1) end
    callbacks[name] = callback
end

--- Ends the process in order: all contexts are destroyed, and what was written to sockets is sent.
--- Does not return, but where nothing can wait.
---@param status? integer|boolean the exit status, as for os.exit
function context.exit(status, ...)
    no_more(2, "exit", ...)
    if type(status) == "boolean" then status = status and 0 or 1 end
    local is_known = type(status) == "nil"
        or type(status) == "number" and status % 1 == 0 and status >= 0 and status <= 255
    if not is_known then bad(1, "exit", "integer from 0 to 255, or boolean,", status) end
    local ok, why = native.exit(status)
    if not ok then raise("exit: " .. why) end
    core.stop_timers()
    if pcall(check_may_wait) then suspend() end
end

core.exit = context.exit

return context
