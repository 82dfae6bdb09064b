-- Functions of `coroutine` that load core/coroutine.lua when the first of them is called: for
-- scripts that look through the globals. See core/dispatch.lua.

local native, coroutines = ...

local ipairs = ipairs

local stubs = {}
for _, name in ipairs({ "resume", "wrap", "yield", "status", "isyieldable", "running" }) do
    stubs[name] = function(...) return native.load_coroutines()[name](...) end
    coroutines[name] = stubs[name]
end
return stubs
