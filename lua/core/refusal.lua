-- Says why a call cannot wait. Loaded with the first that cannot.

local native = ...

local find, format, getinfo = string.find, string.format, debug.getinfo
local pcall, xpcall = pcall, xpcall

local C_BOUNDARY = 200

-- By what native.may_wait returns: where the call is, and the remedy.
local WHERE = {
    "inside a C function (table.sort, string.gsub, a finaliser, …)",
    "in a coroutine that a C function has resumed",
    "inside a finaliser or a hook",
}
local REMEDY = {
    "collect first and wait afterwards",
    "resume it with coroutine.resume or coroutine.wrap, or wait outside of it",
    "have context.run call a function that waits",
}

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
    local is_protected = info and (info.func == pcall or info.func == xpcall)
    return info and not is_protected and info.name
end

return function(why)
    local name = get_name()
    local call = name and format(" in '%s'", name) or ""
    local text = native.strerror(C_BOUNDARY)
    return format("cannot wait%s %s: %s; %s", call, WHERE[why], text, REMEDY[why])
end
