-- What options of this module have in common. Loaded with the first that are given.

local native = ...

local bad, bad_because = native.bad, native.bad_because
local next, type = next, type
local format, concat, sort = string.format, table.concat, table.sort

local M = {}

-- Raises if that is no plain table of options with these names.
function M.check(options, known, position, name)
    if type(options) ~= "table" then bad(position, name, "table of options", options) end
    native.check_plain(position, name, options)
    for field in next, options do
        if known[field] == nil then
            local names = {}
            for one in next, known do
                names[#names + 1] = one
            end
            sort(names)
            local text = "no option named %s; there are %s"
            bad_because(position, name, format(text, native.describe(field), concat(names, ", ")))
        end
    end
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
