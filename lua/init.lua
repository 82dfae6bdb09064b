-- Assembles the script API in a new state.

local native, core, run, first_word, has_json, has_msgpack, has_tls, has_websocket, has_http = ...

local error, next, pcall, rawget, rawset = error, next, pcall, rawget, rawset
local getmetatable, setmetatable = getmetatable, setmetatable
local loadfile, get_package = loadfile, native.package
local loaded = native.loaded()

-- Until a script runs, chunks may as well use its globals.
local function load(name) return run(name, native, core) end

-- Most contexts use little of the library: a module fills in what it lacks, from chunks that are
-- loaded one after the other, when something is looked up in it, or put into it, that it does not
-- have.
local missing = {} -- module → names of its chunks, the next one first
local lazy = {}

local function load_next(module)
    local names = missing[module]
    if not names then return false end
    local name, rest = first_word(names)
    missing[module] = rest
    local is_last = not rest and getmetatable(module) == lazy
    if is_last then setmetatable(module, nil) end
    local ok, found = pcall(load, name)
    if not ok then
        -- There may be room on the stack, or memory, the next time.
        missing[module] = names
        if is_last then setmetatable(module, lazy) end
        error(found, 0)
    end
    local stubs = core.stubs and core.stubs[module]
    for key, value in next, found or {} do
        local stub = stubs and stubs[key] -- in place of what is not loaded: see core/listing.lua
        if stub then core.originals[stub] = value end
        if rawget(module, key) == stub then rawset(module, key, value) end
    end
    return true
end

function lazy.__index(module, key)
    while rawget(module, key) == nil and load_next(module) do
    end
    return rawget(module, key)
end

-- What a script puts in the place of a function must not be overwritten by a later load.
function lazy.__newindex(module, key, value)
    core.load_all(module)
    rawset(module, key, value)
end

function core.load_all(module)
    while load_next(module) do
    end
end

local function defer(module, names)
    missing[module] = names
    return setmetatable(module, lazy)
end

load("core/dispatch")
load("core/ffi")

local context = load("context")
defer(context, "context/query context/wait context/create context/names context/process")
local timer = defer({}, "timer")
local tcp, udp = defer({}, "tcp"), defer({}, "udp")
local buffer = load("buffer")
core.context, core.tcp, core.timer, core.udp = context, tcp, timer, udp
if has_json then core.json = defer({}, "json") end
if has_msgpack then core.msgpack = defer({}, "msgpack") end
if has_tls then core.tls = defer({}, "tls") end
if has_websocket then core.websocket = defer({}, "websocket") end
if has_http then core.http = defer({}, "http") end

-- Lists all functions of the modules, for scripts that look through them.
local list
function native.list(with_buffer)
    list = list or native.load("core/listing")(native, core, load_next, loaded)
    return list(with_buffer)
end

-- Loading the module replaces this function.
function core.sleep(seconds)
    core.load_all(timer)
    return core.sleep(seconds)
end

_G.context, loaded.context = context, context
_G.timer, loaded.timer = timer, timer
_G.tcp, loaded.tcp = tcp, tcp
_G.buffer, loaded.buffer = buffer, buffer
-- `require` knows them too; more names in package.loaded would double its memory.
_G.json, _G.msgpack, _G.tls = core.json, core.msgpack, core.tls
_G.udp, _G.http, _G.websocket = udp, core.http, core.websocket

local modules, require, dofile
local function get_modules()
    if modules then return modules end
    local made = native.load("core/require")(native, core, loaded, get_package(), loadfile, buffer)
    native.show(made.require, require)
    native.show(made.dofile, dofile)
    modules = made
    return made
end
function require(...) return get_modules().require(...) end
function dofile(...) return get_modules().dofile(...) end
_G.require, _G.dofile = require, dofile

local get_chunk = native.load
function run(name, ...) return get_chunk(name)(...) end
