-- Reports that a root coroutine has failed. Loaded with the first failure.

local native, core = ...

local find, format, gsub, sub = string.find, string.format, string.gsub, string.sub
local concat, sort = table.concat, table.sort
local next, pcall, tostring, type = next, pcall, tostring, type
local setmetatable, traceback = setmetatable, debug.traceback
local gethook, sethook = debug.gethook, debug.sethook
local report, take_trace = native.report, native.take_trace
local is_finalising, is_ending = native.is_finalising, native.is_ending

local PLAIN = { string = true, number = true, boolean = true }
-- How many fields of a table are told, and how much of each.
local FIELDS_MAX, BYTES_MAX = 16, 256

local function quote(value)
    if type(value) ~= "string" then return tostring(value) end
    return (gsub(format("%q", sub(value, 1, BYTES_MAX)), "\\\n", "\\n"))
end

-- What a table says of which nothing makes a text: its plain fields, by their names.
local function list_fields(value)
    local fields = {}
    for key, field in next, value do
        if type(key) == "string" and PLAIN[type(field)] then
            fields[#fields + 1] = sub(key, 1, BYTES_MAX) .. " = " .. quote(field)
            if #fields == FIELDS_MAX then break end
        end
    end
    sort(fields)
    return fields[1] and format(" { %s }", concat(fields, ", ")) or ""
end

-- Turns an error value into text, whatever its __tostring does.
local function describe(value)
    if type(value) == "string" then return value end
    local ok, text = pcall(tostring, value)
    local is_text = type(text) == "string" or type(text) == "number"
    if not ok then
        local why = is_text and "; its __tostring fails: " .. text or ""
        return "(error object is a " .. type(value) .. " value" .. why .. ")"
    end
    if not is_text then return "(error object is a " .. type(value) .. " value)" end
    text = text .. ""
    if type(value) == "table" and find(text, "^table: 0x%x+$") then
        text = text .. list_fields(value)
    end
    return text
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
