-- Takes from a context what its creator withholds, before its script runs. See SECURITY.md.
--
-- Whatever is withheld, so are the ways to get it back: FFI and C modules (which can do anything),
-- bytecode (which is not checked when it is loaded), and the parts of `debug` and `jit` that reach
-- into the runtime. Natives of the network are replaced in src/lua/native/confine.rs.

local native, buffer, no_io, no_os, no_network = ...

local raw_load, raw_loadfile, searchpath = load, loadfile, package.searchpath
local getinfo = debug.getinfo
local error, pairs, select, type = error, pairs, select, type

local function keep(library, names)
  local kept = {}
  for i = 1, #names do kept[names[i]] = library[names[i]] end
  for name in pairs(library) do library[name] = nil end
  for name, value in pairs(kept) do library[name] = value end
end

-- FFI is opened first: a literal like 1LL would open it otherwise, and put it in package.loaded.
native.ffi()
native.load_coroutines()
local preload, loaded = package.preload, package.loaded

local function copy(from)
  local to = {}
  for name, value in pairs(from) do to[name] = value end
  return to
end

_G.getfenv, _G.setfenv = native.getfenv, native.setfenv

-- Methods of strings stay what they are; a script may add some.
getmetatable("").__index = setmetatable(copy(string), { __index = string })
getmetatable("").__metatable = false
getmetatable(io.stdout).__metatable = false

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
  if select("#", ...) > 0 or type(where) == "thread" then
    error("bad arguments to 'getinfo' (a level or function, and what to tell, expected)", 2)
  end
  if type(where) == "number" then where = where + 1 end
  local found = getinfo(where, what or "nSlu")
  if found then found.func = nil end
  return found
end

function _G.load(chunk, name, _, ...)
  if select("#", ...) > 0 then return raw_load(chunk, name, "t", (...)) end
  return raw_load(chunk, name, "t")
end

function _G.loadstring(text, name)
  if type(text) ~= "string" then error("bad argument #1 to 'loadstring' (string expected)", 2) end
  return raw_load(text, name, "t")
end

local path = package.path
local function load_module(name)
  local file, why = searchpath(name, no_io and path or package.path)
  if not file then return why end
  local chunk
  chunk, why = raw_loadfile(file, "t")
  if not chunk then error(("error loading module '%s':\n\t%s"):format(name, why), 0) end
  return chunk
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
if no_os or no_network then io.popen, os.execute = nil, nil end
if no_os then keep(os, { "clock", "date", "difftime", "time" }) end
