-- The check of names in tables of options. Loaded by modules that take some.

local native = ...

local bad_because, describe = native.bad_because, native.describe
local next = next
local format, concat, sort = string.format, table.concat, table.sort

-- Raises for what is not known among the fields of argument, or option, `what`.
return function(options, known, what, name)
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
