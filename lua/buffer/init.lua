-- Module buffer: mutable bytes that are shared without a copy. See docs/api/buffer.md.
--
-- The functions of the contract are C functions, installed by src/lua/buffer/userdata.rs when a
-- script asks for one or gets a buffer; they are methods too. The accessors (u16be, put_varint,
-- ...) are made by buffer/access.lua when the first of them is asked for: most contexts never do.
--
--     local b = buffer.new("\1\2")
--     print(b:u16be(0))  --> 258

local native = ...

local buffer = native.buffer_table()
local rawget, rawset, setmetatable = rawget, rawset, setmetatable

local access

--- Internals of the accessors, for other modules of the library; loads them if need be, unless told
--- not to.
function native.buffer_access(is_loaded_only)
    if not access and not is_loaded_only then
        setmetatable(buffer, nil) -- it gets another one
        access = native.load "buffer/access"(native)
    end
    return access
end

setmetatable(buffer, {
    __index = function(_, name)
        native.buffer_methods() -- fills the table, if it is empty
        local method = rawget(buffer, name)
        if method ~= nil then return method end
        local find = native.buffer_access().find
        method = rawget(buffer, name)
        if method ~= nil then return method end
        return find(buffer, name)
    end,
    -- What a script puts in the place of a function must not be overwritten by a later load.
    __newindex = function(_, name, value)
        native.buffer_methods()
        native.buffer_access()
        rawset(buffer, name, value)
    end,
})

return buffer
