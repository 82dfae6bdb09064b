-- The options of context.create. Loaded when a context is created with some.

local native, core = ...

local next, type = next, type
local bit_or = bit.bor
local bad = core.bad
local checks = native.load("core/options")(native)

local NAME_MAX = 253

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

-- What errors have behind the names of options, and the function that they blame.
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
        core.check_file(value, name .. where, caller)
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
        local expected = 'list of names, as { "io", "os" },'
        local denied = 0
        for i = 1, checks.list(value, expected, name .. where, caller) do
            local denial = type(value[i]) == "string" and DENIALS[value[i]]
            if not denial then wrong(name .. "[" .. i .. "]", DENIED, value[i]) end
            denied = bit_or(denied, denial)
        end
        return denied
    end,
}

-- Returns the options, checked; errors have `of` behind their names, and blame the function `name`.
local function check(options, of, name)
    where, caller = of, name
    checks.check(options, CHECKS, of == "" and 1 or "options" .. of, name)
    local checked = {}
    for key, value in next, options do
        checked[key] = CHECKS[key](key, value)
    end
    if not checked.file then CHECKS.file("file", nil) end
    return checked
end

-- context.create with a table in place of the file's name.
local function create(options, path, cpath, ...)
    local checked = check(options, "", "create")
    return native.create(checked.file, path, cpath, checked, ...)
end

return { check = check, create = create }
