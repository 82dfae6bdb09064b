-- Keeps contexts running: starts them again when they end. See docs/api/supervisor.md.
--
--     local supervisor = require "supervisor"
--     local s = supervisor.start {
--       { "worker.lua", "first" },
--       { "worker.lua", "second" },
--       strategy = "one_for_one", intensity = 3, period = 5,
--     }

local native, core = ...

local bad, raise, describe = core.bad, core.raise, native.describe
core.load_all(core.context)
-- Not those of module context, which a script may have replaced.
local create, destroy, wait = core.create, core.destroy, core.wait
local monitor, check_creation = core.monitors().monitor, core.creation().check
local error, next, pcall = error, next, pcall
local rawequal, setmetatable, tostring = rawequal, setmetatable, tostring
local type, unpack, xpcall = type, unpack, xpcall
local format, gsub = string.format, string.gsub
local remove, HUGE = table.remove, math.huge

-- How `create` begins what it says of its arguments.
local CREATE = "bad argument #(%d+) to 'create'"

-- What a child may be given, at most: `unpack` takes no more than some thousands.
local ARGUMENTS_MAX = 1000

--- Which contexts are started again with the one that has ended.
local STRATEGIES = {
    one_for_one = function(_, index) return index, index end,
    one_for_all = function(count) return 1, count end,
    rest_for_one = function(count, index) return index, count end,
}

--- Ends after which a child is started again, by its `restart`.
local RESTARTS = {
    permanent = function() return true end,
    transient = function(reason) return reason ~= "normal" end,
    temporary = function() return false end,
}

-- Supervisors and what is known of them, which scripts do not see.
local records = setmetatable({}, { __mode = "k" })

local supervisor = {}
local Supervisor = { __index = supervisor, __metatable = false }

local M = {}

local on_end -- see below

-- Calls what the script gave, which may wait: its errors are logged and end nothing else.
local function tell(callback, ...)
    if callback then xpcall(callback, native.report_caught, ...) end
end

local function start_child(record, index)
    local child = record.children[index]
    local spec = child.spec
    local ok, handle = pcall(create, unpack(spec, 1, child.n))
    if not ok then
        -- What the script has called, and where in its arguments that is.
        local place = format("bad argument #%%1 of child %d to 'start'", index)
        error(type(handle) == "string" and gsub(handle, CREATE, place) or handle, 0)
    end
    child.handle = handle
    monitor(handle, function(_, reason, detail)
        if child.handle == handle then
            child.handle = nil
            on_end(record, index, reason, detail)
        end
    end)
end

-- The same where nobody is to blame: one that cannot be created has ended.
local function start_again(record, index)
    local ok, why = pcall(start_child, record, index)
    if not ok then
        local ended = record.ended
        ended[#ended + 1] = { index, "error", tostring(why) }
    end
end

local function stop_child(child)
    local handle = child.handle
    child.handle = nil
    if handle then
        destroy(handle, "stopped by its supervisor")
        wait(handle)
    end
end

-- True unless there were more restarts lately than there may be.
local function may_restart(record)
    local now = native.now()
    local times = record.times
    times[#times + 1] = now
    while times[1] <= now - record.period do
        remove(times, 1)
    end
    return #times <= record.intensity
end

-- Ends all children, in reverse order.
local function finish(record, reason, detail)
    if record.is_over then return end
    record.is_over = true
    for i = #record.children, 1, -1 do
        stop_child(record.children[i])
    end
    tell(record.on_finish, reason, detail)
    -- They may hold the supervisor, which could not be collected then.
    record.on_exit, record.on_finish = nil, nil
end

local function react(record, index, reason, detail)
    local children, child = record.children, record.children[index]
    tell(record.on_exit, index, reason, detail)
    -- It may run again already, started with another.
    if record.is_over or child.handle then return end
    if not RESTARTS[child.restart](reason) then
        for i = 1, #children do
            if children[i].handle then return end
        end
        return finish(record, "normal")
    end
    if not may_restart(record) then
        local why = format("%d restarts in %g s", #record.times, record.period)
        return finish(record, "intensity", why)
    end
    local first, last = STRATEGIES[record.strategy](#children, index)
    for i = last, first, -1 do
        stop_child(children[i])
    end
    for i = first, last do
        if record.is_over then return end
        start_again(record, i)
    end
end

-- Reacts to ends one after the other, as stopping children takes time.
function on_end(record, index, reason, detail)
    local ended = record.ended
    ended[#ended + 1] = { index, reason, detail }
    if record.is_reacting then return end
    record.is_reacting = true
    while ended[1] and not record.is_over do
        local one = remove(ended, 1)
        react(record, one[1], one[2], one[3])
    end
    record.is_reacting = false
end

-- What is known of a supervisor. Whoever writes `s.stop()` for `s:stop()` is told so.
local function check_self(self, name)
    local record = records[self]
    if not record then bad(1, name, "supervisor, as in s:" .. name .. "(…),", self) end
    return record
end

--- Ends all children; none is started again.
---@param self table
function supervisor.stop(self, ...)
    local record = check_self(self, "stop")
    core.no_more(2, "stop", ...)
    -- Where that raises all go on.
    if not record.is_over then core.check_may_wait() end
    finish(record, "stopped")
end

--- The handle of a child; nil while it does not run.
---@param self table
---@param index integer
---@return integer|nil
function supervisor.handle(self, index, ...)
    local children = check_self(self, "handle").children
    core.no_more(3, "handle", ...)
    local child = children[index]
    if not child then
        bad(2, "handle", "number of a child, from 1 to " .. #children .. ",", index)
    end
    return child.handle
end

-- Options -----------------------------------------------------------------------------------------

local function check_callback(name, value)
    if type(value) ~= "nil" and type(value) ~= "function" then
        bad(name, "start", "function", value)
    end
end

local OPTIONS = {
    strategy = function(name, value)
        if not STRATEGIES[value] then
            bad(name, "start", '"one_for_one", "one_for_all" or "rest_for_one"', value)
        end
    end,
    intensity = function(name, value)
        if type(value) ~= "number" or not (value >= 0) or value < HUGE and value % 1 ~= 0 then
            bad(name, "start", "whole number of restarts, or math.huge,", value)
        end
    end,
    period = function(name, value)
        if type(value) ~= "number" or not (value > 0) then
            bad(name, "start", "number of seconds above 0", value)
        end
    end,
    on_exit = check_callback,
    on_finish = check_callback,
}

local KNOWN = "'strategy', 'intensity', 'period', 'on_exit' or 'on_finish', and children from 1 on"
local KNOWN_OF_CHILD = "'restart' or 'n', and the arguments of context.create from 1 to "
    .. ARGUMENTS_MAX

local function is_position(key) return type(key) == "number" and key >= 1 and key % 1 == 0 end

local function refuse_key(where, key, known)
    raise(
        "bad argument #1 to 'start' ("
            .. where
            .. " has no option named "
            .. describe(key)
            .. "; there is "
            .. known
            .. ")"
    )
end

-- The last position in a table, none of which may be empty before it.
local function count_children(options)
    local last = 0
    for key in next, options do
        if is_position(key) and key > last then last = key end
    end
    for i = 1, last do
        local spec = options[i]
        if type(spec) ~= "table" then bad("child " .. i, "start", "table", spec) end
    end
    if last == 0 then
        raise("bad argument #1 to 'start' (a table for each child expected, got no children)")
    end
    return last
end

-- What is known of a child; raises unless it could be created.
local function check_child(spec, index)
    local where, last = "child " .. index, 0
    native.check_plain(where, "start", spec)
    for key in next, spec do
        if is_position(key) and key <= ARGUMENTS_MAX then
            if key > last then last = key end
        elseif not rawequal(key, "restart") and not rawequal(key, "n") then
            refuse_key(where, key, KNOWN_OF_CHILD)
        end
    end
    local restart, n = spec.restart, spec.n
    if type(restart) == "nil" then restart = "permanent" end
    if not RESTARTS[restart] then
        bad("restart of " .. where, "start", '"permanent", "transient" or "temporary"', restart)
    end
    if type(n) == "nil" then
        n = last
    elseif type(n) ~= "number" or n % 1 ~= 0 or n < last or n > ARGUMENTS_MAX then
        local text = "number of its arguments, from %d to %d,"
        bad("n of " .. where, "start", format(text, last, ARGUMENTS_MAX), n)
    end
    local file = spec[1]
    if type(file) == "table" then
        check_creation(file, " of " .. where, "start")
    elseif type(file) ~= "string" then
        bad(where, "start", "file name, or table of options, as its first element", file)
    end
    return { spec = spec, n = n, restart = restart }
end

--- Starts contexts, each given as the arguments of context.create, and keeps them running.
---@param options table
---@return table supervisor
function M.start(options, ...)
    core.no_more(2, "start", ...)
    if type(options) ~= "table" then bad(1, "start", "table", options) end
    native.check_plain(1, "start", options)
    for key, value in next, options do
        local check = OPTIONS[key]
        if check then
            check(key, value)
        elseif not is_position(key) then
            refuse_key("the table", key, KNOWN)
        end
    end
    local children = {}
    for i = 1, count_children(options) do
        children[i] = check_child(options[i], i)
    end
    local record = {
        children = children,
        strategy = options.strategy or "one_for_one",
        intensity = options.intensity or 3,
        period = options.period or 5,
        on_exit = options.on_exit,
        on_finish = options.on_finish,
        times = {},
        ended = {},
    }
    for i = 1, #children do
        local ok, why = pcall(start_child, record, i)
        if not ok then
            -- An argument that cannot be sent, most likely: there are no children then.
            record.is_over = true
            for j = i - 1, 1, -1 do
                local handle = children[j].handle
                children[j].handle = nil
                monitor(handle, nil)
                destroy(handle, "stopped by its supervisor")
            end
            error(why, 0)
        end
    end
    local self = setmetatable({}, Supervisor)
    records[self] = record
    return self
end

return M
