-- Takes from a context what its creator withholds, before its script runs. See SECURITY.md.
--
-- Whatever is withheld, so are the ways to get it back: FFI and C modules (which can do anything),
-- bytecode (which is not checked when it is loaded), and the parts of `debug` and `jit` that reach
-- into the runtime. Natives of the network are replaced in src/lua/confine.rs.

local native, buffer, no_io, no_os, no_network = ...

local raw_load, raw_loadfile, searchpath = load, loadfile, package.searchpath
local getinfo, find, format, sub = debug.getinfo, string.find, string.format, string.sub
local error, ipairs, pairs, select, type = error, ipairs, pairs, select, type
local bad = native.bad
local package = package -- its fields are the script's own

local function keep(library, names)
    local kept = {}
    for i = 1, #names do
        kept[names[i]] = library[names[i]]
    end
    for name in pairs(library) do
        library[name] = nil
    end
    for name, value in pairs(kept) do
        library[name] = value
    end
end

-- FFI is opened first: a literal like 1LL would open it otherwise, and put it in package.loaded.
native.ffi()
native.load_coroutines()
local preload, loaded = package.preload, package.loaded

local function copy(from)
    local to = {}
    for name, value in pairs(from) do
        to[name] = value
    end
    return to
end

_G.getfenv, _G.setfenv = native.getfenv, native.setfenv

-- Methods of strings stay what they are; a script may add some.
getmetatable("").__index = setmetatable(copy(string), { __index = string })
getmetatable("").__metatable = false

-- The metatable of files is its own __index: a script could have it claim that files are buffers.
local files = getmetatable(io.stdout)
local methods = copy(files)
for name in pairs(files) do
    if type(name) == "string" and sub(name, 1, 2) == "__" then methods[name] = nil end
end
files.__index, files.__metatable = methods, false

-- Userdata with a metatable of the script's could pass for a buffer; raw pointers are FFI.
_G.newproxy = nil
native.buffer_access()
buffer.ptr, buffer.reserve, buffer.commit = nil, nil, nil
buffer.unpack(buffer.pack("<i8", 1LL), "<i8")
local packet = native.load("packet")(native)
native.bundled = { packet = function() return packet end }

keep(preload, { "table.new", "table.clear" })
for _, name in ipairs({ "ffi", "string.buffer", "jit.util", "jit.profile", "jit.opt" }) do
    loaded[name] = nil
end
keep(jit, { "on", "off", "flush", "status", "version", "version_num", "os", "arch" })

keep(debug, { "traceback" })
function debug.getinfo(where, what, ...)
    local kind = type(where)
    if kind ~= "number" and kind ~= "function" then
        bad(1, "getinfo", "level or function", where)
    end
    if type(what) ~= "nil" and (type(what) ~= "string" or find(what, "[^nSluLf]")) then
        bad(2, "getinfo", 'letters of "nSluLf"', what)
    end
    if select("#", ...) > 0 then bad(3, "getinfo", nil, (...)) end
    if kind == "number" then where = where + 1 end
    local found = getinfo(where, what or "nSlu")
    if found then found.func = nil end
    return found
end

function _G.load(chunk, name, _, ...)
    if select("#", ...) > 0 then return raw_load(chunk, name, "t", (...)) end
    return raw_load(chunk, name, "t")
end

function _G.loadstring(text, name)
    if type(text) ~= "string" then bad(1, "loadstring", "string", text) end
    return raw_load(text, name, "t")
end

-- Who cannot read files looks for modules where its creator has it look, and so do those that it
-- creates; and what is in a file that does not load is not told.
local own_path = no_io and package.path or nil
native.module_path = own_path

local function load_module(name)
    local file, why = searchpath(name, own_path or package.path)
    if not file then return why end
    local chunk
    chunk, why = raw_loadfile(file, "t")
    if chunk then return chunk end
    local text = format("error loading module '%s':\n\t%s", name, why)
    if no_io then
        native.report(text, false)
        text = format("error loading module '%s' (why is in the log: io is withheld)", name)
    end
    error(text, 0)
end

package.loaders = { package.loaders[1], load_module }
package.loadlib = nil
package.cpath = ""

if no_io then
    _G.loadfile, _G.dofile, package.searchpath = nil, nil, nil
    keep(io, { "write" })
    os.execute, os.remove, os.rename, os.tmpname = nil, nil, nil, nil
else
    function _G.loadfile(name, _, ...)
        if select("#", ...) > 0 then return raw_loadfile(name, "t", (...)) end
        return raw_loadfile(name, "t")
    end
    function _G.dofile(name)
        local chunk, why = raw_loadfile(name, "t")
        if not chunk then error(why, 0) end
        return chunk()
    end
end
if no_os or no_network then
    io.popen, os.execute = nil, nil
end
if no_os then keep(os, { "clock", "date", "difftime", "time" }) end
