-- Places that a script may never return from, each with whether a turn can be cut there: not where
-- a C function is on the way that has called back, or has resumed a coroutine. Run as a context,
-- with a name, it does not return from that place.

local function spin()
    while true do
    end
end
local function object(event) return setmetatable({}, { [event] = spin }) end

local places = {
    ["a loop"] = { true, spin },
    ["pcall"] = { true, function() pcall(spin) end },
    ["pcall again and again"] = {
        true,
        function()
            while true do
                pcall(error)
            end
        end,
    },
    ["xpcall"] = { true, function() xpcall(spin, debug.traceback) end },
    ["varargs"] = {
        true,
        function()
            (function(...) return select("#", ...), spin() end)(1, 2)
        end,
    },
    ["recursion"] = {
        true,
        function()
            local function tail(n) return tail(n + 1) end
            tail(1)
        end,
    },
    ["an iterator"] = {
        true,
        function()
            for _ in spin do
            end
        end,
    },
    ["__index"] = { true, function() return object("__index").x end },
    ["__newindex"] = { true, function() object("__newindex").x = 1 end },
    ["__call"] = { true, function() object("__call")() end },
    ["__eq"] = { true, function() return object("__eq") == object("__eq") end },
    ["__lt"] = { true, function() return object("__lt") < object("__lt") end },
    ["__concat"] = { true, function() return object("__concat") .. "x" end },
    ["__unm"] = { true, function() return -object("__unm") end },
    ["__tostring"] = { true, function() tostring(object("__tostring")) end },
    ["a metamethod of FFI"] = {
        true,
        function() return require("ffi").metatype("struct { int x; }", { __index = spin })().y end,
    },
    ["a coroutine"] = { true, function() coroutine.wrap(spin)() end },
    ["coroutines in coroutines"] = {
        true,
        function()
            local function down(depth)
                if depth == 0 then spin() end
                coroutine.wrap(down)(depth - 1)
            end
            down(20)
        end,
    },
    ["coroutines made again and again"] = {
        true,
        function()
            while true do
                coroutine.wrap(function() coroutine.yield() end)()
            end
        end,
    },
    ["compiling"] = {
        true,
        function()
            while true do
                loadstring("return 1 + 2")()
            end
        end,
    },
    ["garbage"] = {
        true,
        function()
            while true do
                local _ = { {}, {} }
            end
        end,
    },
    ["a callback"] = { true, function() context.run(spin) end },
    ["a timer's callback"] = { true, function() timer.timeout(0, spin) end },
    ["table.sort"] = { false, function() table.sort({ 3, 2, 1 }, spin) end },
    ["string.gsub"] = { false, function() ("x"):gsub(".", spin) end },
    ["a reader of load"] = { false, function() load(spin) end },
    ["a handler of xpcall"] = { false, function() xpcall(error, spin) end },
    ["a coroutine below string.gsub"] = {
        false,
        function()
            ("x"):gsub(".", function() coroutine.wrap(spin)() end)
        end,
    },
    ["string.gsub in a coroutine"] = {
        false,
        function()
            coroutine.wrap(function() ("x"):gsub(".", spin) end)()
        end,
    },
    ["a coroutine that C resumes"] = {
        false,
        function() require("coroutines").resume(coroutine.create(spin)) end,
    },
    ["a callback of FFI"] = {
        false,
        function()
            local ffi = require("ffi")
            ffi.cdef("void qsort(void *, size_t, size_t, int (*)(const int *, const int *));")
            ffi.C.qsort(ffi.new("int[2]"), 2, 4, spin)
        end,
    },
    ["a finaliser"] = {
        false,
        function()
            getmetatable(newproxy(true)).__gc = spin
            collectgarbage()
        end,
    },
    ["a hook"] = {
        false,
        function()
            debug.sethook(spin, "", 1)
            return 1 + 1
        end,
    },
}

local name = ...
if not places[name] then return places end
jit.off(places[name][2])
places[name][2]()
