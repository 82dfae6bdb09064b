-- What contexts know of each other beyond messages, and with what they are created: loaded when a
-- script first asks for it. See docs/api/context.md.

local native, core, context = ...

local next, select, type = next, select, type
local bit_or = bit.bor
local bad, raise, no_more, describe = core.bad, core.raise, core.no_more, native.describe
local check_plain = native.check_plain
local call, defer, hold = core.call, core.defer, core.hold
local find_target = core.find_target
local self_handle = native.self()

local NO_CONTEXT = 205
local NAME_MAX = 253
local PATH_MAX = 4095 -- what the system takes
local NOBODY = -1 -- who answers under a name that nobody has

-- Monitors ----------------------------------------------------------------------------------------

local monitors = {} -- handle → { callback, handle or name as it was given }, …

local function tell(h, reason, detail)
    local callbacks = monitors[h]
    if not callbacks then return end
    monitors[h] = nil
    hold(-#callbacks)
    for i = 1, #callbacks do
        local entry = callbacks[i]
        call(entry[1], entry[2], reason, detail)
    end
end

core.on_end = tell

--- Has callback(handle, reason, detail) called when another context has ended: reason is "normal",
--- "error", "killed", "memory", "time", or "gone" if there is no such context any more. With nil,
--- removes the callbacks for that context.
---@param h integer
---@param callback function|nil
function context.monitor(h, ...)
    local callback = ...
    no_more(3, "monitor", select(2, ...))
    if h == nil then core.check_target(h, "monitor") end
    if type(callback) ~= "function" and (callback ~= nil or select("#", ...) == 0) then
        bad(2, "monitor", "function or nil", ...)
    end
    local number, code, text = find_target(h, "monitor")
    if text then return false, code, text end
    if number == NOBODY then return false, NO_CONTEXT end
    if number == 0 or number == self_handle then
        bad(1, "monitor", "handle of another context", h)
    end
    local callbacks = monitors[number] or {}
    if callback == nil then
        monitors[number] = nil
        hold(-#callbacks)
        return
    end
    hold(1)
    callbacks[#callbacks + 1] = { callback, h }
    monitors[number] = callbacks
    local lives, reason, detail = native.watch(number)
    if not lives then defer(tell, number, reason or "gone", detail) end
    return true
end

-- Errors ------------------------------------------------------------------------------------------

--- Has callback(message, traceback) called for every error in this context that nobody catches, in
--- the place of the entry in the log. With nil, they are logged again.
---@param callback function|nil
function context.on_error(callback, ...)
    no_more(2, "on_error", ...)
    if callback ~= nil and type(callback) ~= "function" then
        bad(1, "on_error", "function or nil", callback)
    end
    core.on_error = callback
end

-- Figures -----------------------------------------------------------------------------------------

--- What a context, this one if none is named, has used and holds; nil if it is gone.
---@param h? integer
---@return table|nil
function context.stat(h)
    if h == nil then return native.stat(self_handle) end
    h = core.check_target(h, "stat")
    if type(h) == "string" then h = native.find_name(h) or NOBODY end
    return native.stat(h) or nil
end

-- Creation with options ---------------------------------------------------------------------------

local DENIALS = {
    ffi = 1,
    io = 2,
    os = 4,
    loadlib = 8,
    ["package.loadlib"] = 8,
    network = 16,
    create = 32,
}
local DENIED = '"ffi", "io", "os", "loadlib", "network" or "create"'

-- Whose options are looked at: what stands behind their names, and the function to name.
local where, caller = "", "create"

local function wrong(name, expected, value) bad(name .. where, caller, expected, value) end

local function count(name, value)
    if type(value) ~= "number" or not (value >= 1 and value < 2 ^ 53 and value % 1 == 0) then
        wrong(name, "whole number from 1 to 2^53 - 1", value)
    end
    return value
end

local CHECKS = {
    file = function(name, value)
        if type(value) ~= "string" then wrong(name, "file name", value) end
        if #value > PATH_MAX then
            wrong(name, "file name of at most " .. PATH_MAX .. " bytes", value)
        end
        return value
    end,
    name = function(name, value)
        if type(value) ~= "string" or value == "" or #value > NAME_MAX then
            wrong(name, "string of 1 to " .. NAME_MAX .. " bytes", value)
        end
        return value
    end,
    mailbox = count,
    queries = count,
    memory = count,
    turn_limit = function(name, value)
        if type(value) ~= "number" or not (value > 0 and value < 1 / 0) then
            wrong(name, "number of seconds above 0", value)
        end
        return value
    end,
    worker = function(name, value)
        local workers = native.ncpu()
        if type(value) ~= "number" or value % 1 ~= 0 or value < 0 or value >= workers then
            local last = workers - 1
            wrong(name, last == 0 and "0" or "integer from 0 to " .. last, value)
        end
        return value
    end,
    deny = function(name, value)
        local check_list = native.load("core/options")(native).list
        local expected = 'list of names, as { "io", "os" },'
        local denied = 0
        for i = 1, check_list(value, expected, name .. where, caller) do
            local denial = type(value[i]) == "string" and DENIALS[value[i]]
            if not denial then wrong(name .. "[" .. i .. "]", DENIED, value[i]) end
            denied = bit_or(denied, denial)
        end
        return denied
    end,
}

local KNOWN = "'file', 'name', 'mailbox', 'queries', 'memory', 'turn_limit', 'worker' and 'deny'"

--- The options of context.create, checked; `of` is what their names are to be followed by, and
--- `name` the function that they are given to.
function core.check_options(options, of, name)
    where, caller = of, name
    check_plain(of == "" and 1 or "options" .. of, name, options)
    local checked = {}
    for key, value in next, options do
        local check = CHECKS[key]
        if not check then
            raise(
                "bad argument #1 to '"
                    .. caller
                    .. "' (no option "
                    .. describe(key)
                    .. where
                    .. "; there are "
                    .. KNOWN
                    .. ")"
            )
        end
        checked[key] = check(key, value)
    end
    if not checked.file then wrong("file", "file name", nil) end
    return checked
end

--- context.create with a table in place of the file's name.
function core.create_with(options, path, cpath, ...)
    local checked = core.check_options(options, "", "create")
    return native.create(checked.file, path, cpath, checked, ...)
end
