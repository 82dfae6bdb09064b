-- Monitors, uncaught errors, and figures of contexts. Loaded when one of the functions is first
-- called. See docs/api/context.md.

local native, core = ...

local select, type = select, type
local bad, no_more = core.bad, core.no_more
local call, defer, hold = core.call, core.defer, core.hold
local find_target = core.find_target
local self_handle = native.self()

local NO_CONTEXT = 205
local NOBODY = -1 -- who answers under a name that nobody has

local context = {}

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
    -- Not `h == nil`, here and elsewhere: objects of FFI may have a comparison, and a null pointer
    -- is equal to nil.
    if type(h) == "nil" then core.check_target(h, "monitor") end
    if type(callback) ~= "function" and (type(callback) ~= "nil" or select("#", ...) == 0) then
        bad(2, "monitor", "function or nil", ...)
    end
    local number, code, text = find_target(h, "monitor")
    if text then return false, code, text end
    if number == NOBODY then return false, NO_CONTEXT end
    if number == 0 or number == self_handle then
        bad(1, "monitor", "handle of another context", h)
    end
    local callbacks = monitors[number] or {}
    if type(callback) == "nil" then
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
---@param ... function|nil
function context.on_error(...)
    local callback = ...
    no_more(2, "on_error", select(2, ...))
    if type(callback) ~= "function" and (type(callback) ~= "nil" or select("#", ...) == 0) then
        bad(1, "on_error", "function or nil", ...)
    end
    core.on_error = callback
end

-- Figures -----------------------------------------------------------------------------------------

--- What a context, this one if none is named, has used and holds; nil if it is gone.
---@param h? integer
---@return table|nil
function context.stat(h)
    if type(h) == "nil" then return native.stat(self_handle) end
    h = core.check_target(h, "stat")
    if type(h) == "string" then h = native.find_name(h) or NOBODY end
    return native.stat(h) or nil
end

return context
