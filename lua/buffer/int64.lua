-- 64-bit integers for pack and unpack, which the C API of LuaJIT knows nothing of. Not for scripts.
-- Loaded by src/lua/buffer/pack.rs when the first value needs it.

local open_ffi = ...
local ffi = open_ffi and open_ffi() or require "ffi"
local cast, istype = ffi.cast, ffi.istype

local int64, uint64 = ffi.typeof "int64_t", ffi.typeof "uint64_t"

--- 1 for an int64_t, 2 for a uint64_t, nil for any other cdata.
local function kind(value)
    return istype(int64, value) and 1 or istype(uint64, value) and 2 or nil
end

--- The integer with these halves, both given as numbers from 0 to 2^32 - 1.
local function join(low, high, signed)
    local value = cast(uint64, high) * 0x100000000ULL + cast(uint64, low)
    return signed and cast(int64, value) or value
end

return function(what, ...)
    if what == "kind" then return kind(...) end
    return join(...)
end
