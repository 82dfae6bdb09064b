-- What hooks for calls, returns and lines see of functions that are C in LuaJIT, and what they name.

local function name_of(f)
    for _, name in ipairs({ "pcall", "error", "require", "dofile", "tostring", "loadstring" }) do
        if _G[name] == f then return name end
    end
    for _, module in ipairs({ "coroutine", "table", "string", "debug", "package" }) do
        for name, value in pairs(_G[module]) do
            if value == f then return module .. "." .. name end
        end
    end
    for i, loader in ipairs(package.loaders) do
        if loader == f then return "loader " .. i end
    end
    return "?"
end

local seen = {}
local function hook(event, line)
    local about = debug.getinfo(2, "nSlf")
    local what = about.what == "C" and name_of(about.func) or about.what
    local name = about.name or ""
    seen[#seen + 1] = table.concat({ event, line or "", about.currentline, what, name }, " ")
end

local function run(label, events, f)
    debug.sethook(hook, events)
    pcall(f)
    debug.sethook()
    print("== " .. label .. " " .. events)
    print(table.concat(seen, "\n"))
    seen = {}
end

package.preload.here = function() return 1 end

-- stylua: ignore
local cases = {
    { "require", function() require("here") require("here") return require("math") end },
    { "require nothing", function() require("nowhere") end },
    { "resume", function()
        local co = coroutine.create(function() coroutine.yield(1) return 2 end)
        coroutine.resume(co, 1) coroutine.resume(co) coroutine.resume(co)
        coroutine.status(co)
        return coroutine.resume(co)
    end },
    { "wrap", function()
        local f = coroutine.wrap(function() coroutine.yield(1) return coroutine.yield(2) end)
        f(1)
        f() return f()
    end },
    { "about", function() coroutine.running() return coroutine.isyieldable() end },
    { "dofile", function() dofile("/dev/null") return dofile("/dev/null") end },
    { "load", function() return loadstring("return 1")() end },
    { "tail", function() return tostring(1) end },
    { "sort", function()
        table.sort({ 3, 2, 1 }, function(a, b) return a < b end)
        return table.sort({ 3, 2, 1 })
    end },
    { "error", function() error("x") end },
    { "wrong", function() coroutine.resume(1) end },
    { "wrong tail", function() return coroutine.create(1) end },
    { "nested", function()
        local f = coroutine.wrap(function()
            local g = coroutine.wrap(function() coroutine.yield(1) end)
            g() coroutine.yield(2) g()
        end)
        f() f()
    end },
    { "loop", function()
        local f = coroutine.wrap(function() while true do coroutine.yield() end end)
        for _ = 1, 3 do f() end
    end },
    { "by turns", function()
        local co = coroutine.create(function() end)
        for _ = 1, 2 do
            for _, f in ipairs({ coroutine.status, type, tostring, coroutine.status }) do f(co) end
        end
    end },
    { "caught", function()
        for _, f in ipairs({ coroutine.status, error, coroutine.status, require, tostring }) do
            pcall(f, 1)
        end
    end },
}

for _, events in ipairs({ "c", "r", "cr", "l", "crl" }) do
    for _, case in ipairs(cases) do
        run(case[1], events, case[2])
    end
end
