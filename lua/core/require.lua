-- `require` and `dofile` in Lua: LuaJIT's own call the loaded file from C, where a file could not
-- wait for anything. Loaded when a script calls one of them.
--
-- They do what lib_package.c and lib_base.c do, step by step, and their frames stand for those of
-- the C functions: what a module is loaded by, or loads, cannot tell them apart. That is why
-- nothing is called in between that a script could see, and nothing is caught here.

local native, core, loaded, package, raw_loadfile, buffer = ...

local error, pairs, rawequal, rawget = error, pairs, rawequal, rawget
local select, tostring, type = select, tostring, type
local find, format, gsub, sub = string.find, string.format, string.gsub, string.sub
local getinfo = debug.getinfo
local getmetatable, setmetatable = getmetatable, setmetatable
local frames = native.frames

-- In package.loaded while a module is loaded, and afterwards if that has failed: a number, as in
-- LuaJIT, and not a table, which a module could take for itself.
local LOADING = native.loading()

local modules = {}

-- What is being loaded, by name: { root, coroutine, depth, tokens of others that wait }. And what a
-- root coroutine waits for.
local loading, awaited = {}, {}
-- By coroutine, what it loads, each for the one before; what has failed is still in the list.
local stacks = setmetatable({}, { __mode = "k" })
local waited_for = 0 -- how many have tokens

-- Modules of the library that are in package.loaded from the start. One of the same name in the
-- path is the script's own, and comes first; who has asked once keeps what there was.
local BUNDLED = { packet = true, supervisor = true }
-- These come before modules in C: what is installed on the machine is not what a script brings.
local BEFORE_C = { cjson = true, ["cjson.safe"] = true }
local LUA_LOADER = 2
local own = {
    buffer = buffer,
    context = core.context,
    tcp = core.tcp,
    timer = core.timer,
    udp = core.udp,
    json = core.json,
    tls = core.tls,
    websocket = core.websocket,
    http = core.http,
    msgpack = core.msgpack,
}

-- The modules that come with LuaJIT are in the binary; they fit this VM alone, so that files of
-- the same names are not looked for. Nothing is made of them before they are asked for. Confined
-- scripts have no use for any, and would reach what loads them.
local preload = package.preload
if not native.bundled and type(preload) == "table" and not getmetatable(preload) then
    setmetatable(preload, { __index = function(_, name) return native.load_jit(name) end })
end

-- A script of several files is worth the few bytes: any of them may use coroutines.
native.load_coroutines()
native.list()

-- Raises as luaL_checkstring does: the function has the name by which it was called.
local function check(count, value)
    local kind = type(value)
    if kind == "number" then return tostring(value) end
    local called = getinfo(2, "n")
    local name = called.name or "?"
    if count == 0 then kind = "no value" end
    if called.namewhat == "method" then
        error(format("calling '%s' on bad self (string expected, got %s)", name, kind), 3)
    end
    error(format("bad argument #1 to '%s' (string expected, got %s)", name, kind), 3)
end

-- As far as C sees it.
local function cut(name)
    local zero = find(name, "\0", 1, true)
    return zero and sub(name, 1, zero - 1) or name
end

local function fail(name) error(format("loop or previous error loading module '%s'", name), 4) end

-- Whether the call that loads a module has not been left yet.
local function is_active(load)
    return stacks[load.coroutine][load.depth] == load
        and frames(modules.require, load.coroutine) >= load.depth
end

-- Resumes whoever waits for a module that has been loaded, or has failed.
local function wake(load)
    if not load[1] then return end
    waited_for = waited_for - 1
    if waited_for == 0 then core.set_after_run(nil) end
    for i = 1, #load do
        core.defer(core.complete, load[i], true)
        load[i] = nil
    end
end

-- After a root coroutine has run: loads that failed do not tell.
local function look_after()
    for _, load in pairs(loading) do
        if load[1] and not is_active(load) then wake(load) end
    end
end

-- Waits until another root coroutine has loaded a module. Who waits for itself, by way of others
-- or not, is in a loop.
local function await(name)
    local load, me = loading[name], core.current()
    if not load or not is_active(load) then fail(name) end
    local other = load
    while other do
        if other.root == me then fail(name) end
        other = awaited[other.root]
    end
    core.check_may_wait()
    if not load[1] then
        waited_for = waited_for + 1
        core.set_after_run(look_after)
    end
    load[#load + 1] = core.register()
    awaited[me] = load
    core.suspend()
    awaited[me] = nil
    if rawequal(loaded[name], LOADING) then fail(name) end
    return loaded[name]
end

local function begin(name)
    local depth, co = frames(modules.require)
    local stack = stacks[co]
    if not stack then
        stack = {}
        stacks[co] = stack
    end
    for i = #stack, depth, -1 do
        wake(stack[i])
        stack[i] = nil
    end
    local load = { root = core.current(), coroutine = co, depth = depth }
    stack[depth], loading[name] = load, load
    return load
end

local function finish(name, load)
    if loading[name] == load then loading[name] = nil end
    stacks[load.coroutine][load.depth] = nil
    wake(load)
end

-- Whether a file is running already, as the script that asks for the library's module, mostly.
local function is_running(chunk)
    local loads = getinfo(chunk, "S")
    if loads.what ~= "main" then return false end
    local source, level = gsub(loads.source, "^@%./", "@"), 3
    local found = getinfo(level, "S")
    while found do
        if found.what == "main" and gsub(found.source, "^@%./", "@") == source then return true end
        level = level + 1
        found = getinfo(level, "S")
    end
    return false
end

local function is_ours(name)
    return own[name] ~= nil or BUNDLED[name] == true or BEFORE_C[name] == true
end

-- The loader of a module of the library.
local function bundled(name)
    local module = own[name]
    if module then
        own[name] = nil
        return function() return module end
    end
    if native.bundled and native.bundled[name] then return native.bundled[name] end
    if BEFORE_C[name] then
        local chunk = native.load("cjson")
        return chunk and function(...) return chunk(native, core, ...) end
    end
    if not BUNDLED[name] then return end
    return function(...) return native.load(name)(native, core, ...) end
end

function modules.require(...)
    local name = ...
    if type(name) ~= "string" then name = check(select("#", ...), name) end
    name = cut(name)
    local module = loaded[name]
    if module then
        if rawequal(module, LOADING) then return (await(name)) end
        if not rawequal(own[name], module) then return module end
    end
    local loaders = package.loaders
    if type(loaders) ~= "table" then error("'package.loaders' must be a table", 2) end
    local tried, i = "", 1
    local loader
    repeat
        local search = rawget(loaders, i)
        if type(search) == "nil" then
            loader = bundled(name)
            if not loader then error(format("module '%s' not found:%s", name, tried), 2) end
        else
            local found = search(name)
            local kind = type(found)
            if kind == "string" or kind == "number" then
                tried = tried .. found
            elseif kind == "function" and not (is_ours(name) and is_running(found)) then
                loader = found
            end
        end
        if not loader and i == LUA_LOADER and BEFORE_C[name] then loader = bundled(name) end
        i = i + 1
    until loader
    native.look_at(loader)
    loaded[name] = LOADING
    local load = begin(name)
    local result = loader(name)
    finish(name, load)
    if type(result) ~= "nil" then loaded[name] = result end
    result = loaded[name]
    if rawequal(result, LOADING) then
        result = true
        loaded[name] = true
    end
    own[name] = nil
    return result
end

local function pass(...) return ... end

function modules.dofile(...)
    local name = ...
    if type(name) ~= "nil" then
        if type(name) ~= "string" then name = check(1, name) end
        name = cut(name)
    end
    local chunk, why = raw_loadfile(name)
    if not chunk then error(why, 0) end
    native.look_at(chunk)
    return pass(chunk())
end

return modules
