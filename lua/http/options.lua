-- What options of this module have in common. Loaded with the first that are given.

local native = ...

local bad = native.bad
local type = type
local format = string.format
local check_fields = native.load("core/options")(native)

local M = {}

-- Raises if that is no plain table of options with these names.
function M.check(options, known, position, name)
    if type(options) ~= "table" then bad(position, name, "table of options", options) end
    native.check_plain(position, name, options)
    check_fields(options, known, position, name)
end

function M.boolean(value, option, name, default)
    if value == nil then return default end
    if type(value) ~= "boolean" then bad(option, name, "boolean", value) end
    return value
end

-- A whole number within these bounds.
function M.whole(value, option, name, default, least, most)
    if value == nil then return default end
    if type(value) ~= "number" or value % 1 ~= 0 or value < least or value > most then
        bad(option, name, format("whole number from %.0f to %.0f", least, most), value)
    end
    return value
end

-- A number of seconds; 0 is for ever.
function M.seconds(value, option, name, default)
    if value == nil then return default end
    if type(value) ~= "number" or not (value >= 0 and value < 1e9) then
        bad(option, name, "number of seconds, 0 for no limit,", value)
    end
    return value
end

return M
