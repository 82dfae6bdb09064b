-- Module json: text for Lua values, and values for text. See docs/api/json.md.
--
--     local text = json.encode({ id = 7, tags = json.array({}) })
--     print(json.decode(text).id)  --> 7
--
-- All of it is done in src/lua/json.rs; here is what says how a table is to be written.

local native = ...

local bad, bad_because = native.bad, native.bad_because
local getmetatable, rawequal, setmetatable, type = getmetatable, rawequal, setmetatable, type

local ARRAY, OBJECT = native.data_mark(0), native.data_mark(1)

local function marker(name, mark)
    return function(t)
        if type(t) == "nil" then t = {} end
        if type(t) ~= "table" then bad(1, name, "table", t) end
        local before = getmetatable(t)
        if before and not rawequal(before, ARRAY) and not rawequal(before, OBJECT) then
            bad_because(1, name, "table without a metatable expected, this one has one")
        end
        return setmetatable(t, mark)
    end
end

local M = { array = marker("array", ARRAY), object = marker("object", OBJECT) }
M.encode, M.decode = native.json_encode, native.json_decode
M.null = native.data_constants()

return M
