-- Checks of tables of options, of lists in them, and of their usual values. `name` is the function
-- to blame; `what` the position of its argument, or the name of an option. Loaded by modules that
-- take some.

local native = ...

local bad, bad_because, describe = native.bad, native.bad_because, native.describe
local check_plain = native.check_plain
local next, type = next, type
local format, concat, sort = string.format, table.concat, table.sort

local M = {}

--- Raises for fields that are not among the keys of `known`.
function M.fields(options, known, what, name)
    for field in next, options do
        if known[field] == nil then
            local names = {}
            for one in next, known do
                names[#names + 1] = one
            end
            sort(names)
            local text = "no option named %s; there are %s"
            bad_because(what, name, format(text, describe(field), concat(names, ", ")))
        end
    end
end

--- Raises unless it is a plain table with no fields but those of `known`.
function M.check(options, known, what, name)
    if type(options) ~= "table" then bad(what, name, "table of options", options) end
    check_plain(what, name, options)
    M.fields(options, known, what, name)
end

--- The last position of a list, before which some may be nil. Raises for other keys, which would be
--- ignored.
function M.list(list, expected, what, name)
    if type(list) ~= "table" then bad(what, name, expected, list) end
    check_plain(what, name, list)
    local last = 0
    for key in next, list do
        if type(key) ~= "number" or key < 1 or key % 1 ~= 0 then
            local text = "%s expected, got a table with key %s"
            bad_because(what, name, format(text, expected, describe(key)))
        end
        if key > last then last = key end
    end
    return last
end

function M.boolean(value, option, name, default)
    if type(value) == "nil" then return default end
    if type(value) ~= "boolean" then bad(option, name, "boolean", value) end
    return value
end

function M.whole(value, option, name, default, least, most)
    if type(value) == "nil" then return default end
    if type(value) ~= "number" or value % 1 ~= 0 or value < least or value > most then
        bad(option, name, format("whole number from %.0f to %.0f", least, most), value)
    end
    return value
end

--- A number of seconds; 0 is for ever.
function M.seconds(value, option, name, default)
    if type(value) == "nil" then return default end
    if type(value) ~= "number" or not (value >= 0 and value < 1e9) then
        bad(option, name, "number of seconds, 0 for no limit,", value)
    end
    return value
end

return M
