-- Declares the headers of ffi/ to the FFI library, each once per context. Not for scripts.
--
--     native.load "buffer/cdef"(native, "buffer.h")

local native, name = ...

local declared = native.declared or {}
native.declared = declared

if not declared[name] then
    local text = native.header(name)
    if not text then error("no header named " .. tostring(name)) end
    native.ffi("ffi").cdef(text)
    declared[name] = true
end
