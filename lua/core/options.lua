-- The checks of tables of options, and of lists in them. Loaded by modules that take some.

local native = ...

local bad, bad_because, describe = native.bad, native.bad_because, native.describe
local check_plain = native.check_plain
local next, type = next, type
local format, concat, sort = string.format, table.concat, table.sort

-- Raises for what is not known among the fields of argument, or option, `what`.
local function check_fields(options, known, what, name)
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

-- The last place of a list, before which some may be empty. Raises for what is none as it was
-- expected: what is at other keys would be dropped.
local function check_list(list, expected, what, name)
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

return check_fields, check_list
