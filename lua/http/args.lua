-- Queries and forms (application/x-www-form-urlencoded). Loaded with the first.

local format_byte, gmatch, gsub, match = string.char, string.gmatch, string.gsub, string.match
local tonumber, type = tonumber, type

local function decode_byte(digits) return format_byte(tonumber(digits, 16)) end

local function decode(text)
    text = gsub(text, "+", " ")
    return (gsub(text, "%%(%x%x)", decode_byte))
end

-- A table of names with their values, decoded; lists of values for names that come more than once.
return function(query)
    local args = {}
    for one in gmatch(query, "[^&]+") do
        local name, value = match(one, "^([^=]*)=(.*)$")
        if not name then
            name, value = one, ""
        end
        name, value = decode(name), decode(value)
        local known = args[name]
        if known == nil then
            args[name] = value
        elseif type(known) == "table" then
            known[#known + 1] = value
        else
            args[name] = { known, value }
        end
    end
    return args
end
