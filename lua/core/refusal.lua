-- Says, and raises, why a call cannot wait. Loaded with the first that cannot.

local native, core = ...

local find, format = string.find, string.format
local getinfo, getlocal = debug.getinfo, debug.getlocal
local pcall, tostring, type, xpcall = pcall, tostring, type, xpcall

local C_BOUNDARY = 200

-- By what native.may_wait returns: where the call is, and the remedy.
local WHERE = {
    "inside a C function (table.sort, string.gsub, a finaliser, …)",
    "in a coroutine that a C function has resumed",
    "inside a finaliser or a hook",
    "inside the error handler of xpcall",
    "in a process that was forked off",
    "in a coroutine inside the error handler of xpcall",
}
local REMEDY = {
    "collect first and wait afterwards",
    "resume it with coroutine.resume or coroutine.wrap, or wait outside of it",
    "have context.run call a function that waits",
    "return from the handler first, and wait after xpcall",
    "the threads that would wake it are in the other process alone: execute a program, or end",
    "return from the handler first, and wait after xpcall",
}

-- Functions of the VM that call others: one of the library's may end what they have called.
local CALLERS = { [pcall] = true, [xpcall] = true, [string.gsub] = true, [table.sort] = true }

-- The name that the script has for the function of the library that it has called, if it has called
-- that itself.
local function get_name()
    local level = 3
    local info = getinfo(level, "S")
    while info and find(info.source, "=[C]", 1, true) == 1 do
        level = level + 1
        info = getinfo(level, "S")
    end
    info = getinfo(level - 1, "nf")
    return info and not CALLERS[info.func] and info.name
end

-- The error that the innermost handler was called for, if it is there: its first argument, or what
-- it has put in that one's place.
local function get_original()
    local level, functions, count = 3, {}, 0
    local info = getinfo(level, "f")
    while info do
        count = count + 1
        functions[count] = info.func
        if info.func == xpcall then
            local _, handler = getlocal(level, 1)
            for i = 1, count do
                if functions[i] == handler then
                    local has_name = getinfo(i + 2, "u").nparams > 0
                    -- A tail call would be a level less.
                    local is_there, original = getlocal(i + 2, has_name and 1 or -1)
                    return is_there, original
                end
            end
            return
        end
        level = level + 1
        info = getinfo(level, "f")
    end
end

local HANDLER, RESUMED_IN_HANDLER = 4, 6

return function(why)
    local name = get_name()
    local call = name and format(" in '%s'", name) or ""
    local text = native.strerror(C_BOUNDARY)
    text = format("cannot wait%s %s: %s; %s", call, WHERE[why], text, REMEDY[why])
    if why ~= HANDLER then
        if why == RESUMED_IN_HANDLER then core.refused = native.placed(text) end
        core.raise(text)
    end
    local is_there, original = get_original()
    if is_there then
        local ok, told = pcall(tostring, original)
        if not ok or type(told) ~= "string" then told = "a " .. type(original) .. " value" end
        text = format("%s. The error was: %s", text, told)
    end
    -- The VM would tell nothing of an error in a handler: the text has its place already.
    native.throw(native.placed(text))
end
