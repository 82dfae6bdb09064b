-- Finds the FFI library, or opens it. Loaded when FFI is first asked for.
--
-- LuaJIT opens FFI by itself, and puts it in package.loaded, when it meets a constant like 1LL for
-- the first time. Whether it has cannot be seen; but with the constant below it has, at the latest
-- when this file was loaded. Before that package.loaded.ffi was emptied.

local loaded, before, open_ffi = ...

local find, rawget, tostring, type = string.find, rawget, tostring, type

local function is_builtin(f) return f ~= nil and find(tostring(f), "builtin#", 1, true) end

local opened = rawget(loaded, "ffi")
if opened then return opened end

-- It was open, then, since a constant of the script's.
if type(before) == "table" then
    local cdef, istype = rawget(before, "cdef"), rawget(before, "istype")
    if is_builtin(cdef) and is_builtin(istype) and istype("int64_t", 1LL) then return before end
end

-- A script that has thrown it away does not ask for what it has declared.
return open_ffi("ffi")
