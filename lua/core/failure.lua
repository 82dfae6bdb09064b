-- Reports that a root coroutine has failed. Loaded with the first failure.

local native, core = ...

local gsub, pcall, tostring, type = string.gsub, pcall, tostring, type
local setmetatable, traceback = setmetatable, debug.traceback
local gethook, sethook = debug.gethook, debug.sethook
local report, take_trace = native.report, native.take_trace
local is_finalising, is_ending = native.is_finalising, native.is_ending

-- Turns an error value into text, whatever its __tostring does.
local function describe(value)
    if type(value) == "string" then return value end
    local ok, text = pcall(tostring, value)
    if ok and (type(text) == "string" or type(text) == "number") then return text .. "" end
    return "(error object is a " .. type(value) .. " value)"
end
core.describe_error = describe

-- Root coroutines that call the script's callback for errors → what it is called for.
local telling = setmetatable({}, { __mode = "k" })

-- Likewise → the script's hook, events and count; it is off meanwhile, for it may be what has
-- failed.
local hooks = setmetatable({}, { __mode = "k" })

local function set_hook_again(me)
    local hook = hooks[me]
    hooks[me] = nil
    if hook then sethook(hook[1], hook[2], hook[3]) end
end

local function tell(text, message, trace)
    local me = core.current()
    telling[me] = text
    local hook, events, count = gethook()
    if type(hook) == "function" then
        hooks[me] = { hook, events, count }
        sethook()
    end
    core.on_error(message, trace)
    set_hook_again(me)
    telling[me] = nil
end

-- `is_here` tells that this is called where the error was raised.
return function(co, message, is_main, is_here)
    local trace
    if is_here then
        trace = gsub(traceback("", 3), "^\n", "")
    else
        trace = take_trace()
    end
    -- What the runtime itself runs in is the same for all.
    if trace then
        local left
        repeat
            trace, left = gsub(trace, "\n\t%[C%]: at 0x%x+$", "")
        until left == 0
        if trace == "stack traceback:" then trace = nil end
    end
    local text = describe(message)
    if trace then text = text .. "\n" .. trace end
    local is_finaliser = is_here and is_finalising()
    if is_finaliser then text = "in a finaliser: " .. text end
    local before = telling[co]
    if before and not is_here then
        telling[co] = nil
        set_hook_again(co)
        report("in the callback of context.on_error: " .. text, is_main)
        report(before, false)
        return
    end
    -- Finalisers run when a context ends, too: nobody can be told any more.
    local is_told = core.on_error ~= nil and not (is_finaliser and is_ending())
    -- A script that ends by `error()`, and so with a status of 1, has nothing to say.
    local is_silent = type(message) == "nil" and is_main and not native.parent()
    report(text, is_main, is_told or is_silent, is_finaliser)
    if not is_told then return end
    if not is_here then return core.call(tell, text, message, trace or "") end
    core.defer(function() core.call(tell, text, message, trace or "") end)
end
