-- Module msgpack: MessagePack for Lua values, and values for MessagePack. See docs/api/msgpack.md.
--
--     local bytes = msgpack.encode({ id = 7, tags = msgpack.array({}) })
--     print(msgpack.decode(bytes).id)  --> 7
--
-- All of it is done in src/lua/msgpack.rs; the marks are those of module json.

local native = ...

local bad = native.bad
local setmetatable, type = setmetatable, type

local json = native.load "json"(native)
local EXTENSION = native.data_mark(3)

local M = { array = json.array, object = json.object, null = json.null }
M.encode, M.decode = native.msgpack_encode, native.msgpack_decode

--- A value of an application's own type: a number from -128 to 127, and bytes.
function M.ext(kind, data)
    if type(kind) ~= "number" or kind % 1 ~= 0 or kind < -128 or kind > 127 then
        bad(1, "ext", "whole number from -128 to 127", kind)
    end
    if type(data) ~= "string" then bad(2, "ext", "string", data) end
    return setmetatable({ type = kind, data = data }, EXTENSION)
end

return M
