-- `require` and `dofile` in Lua: the built-in ones call the loaded file from C, where a file could
-- not wait for anything.

local native = ...

local error, ipairs, loadfile, tostring, type = error, ipairs, loadfile, tostring, type

local LOADING = {}

-- FFI is opened once, by whoever asks first, and then the same for scripts and for the library:
-- opening it twice would forget what was declared, and a script may put its own `require`, or its
-- own package.loaded.ffi, in the way.
local open_ffi, ffi = package.preload.ffi, nil
local function get_ffi()
  if not ffi then
    ffi = open_ffi("ffi")
    package.loaded.ffi = ffi
  end
  return ffi
end
package.preload.ffi = get_ffi
native.set_ffi(get_ffi)

-- Modules that come with the binary, by name.
for _, name in ipairs({ "packet", "supervisor" }) do
  package.preload[name] = function(...) return native.load(name)(native, ...) end
end

function _G.require(name)
  if type(name) ~= "string" then
    error(("bad argument #1 to 'require' (string expected, got %s)"):format(type(name)), 2)
  end
  local loaded = package.loaded
  local module = loaded[name]
  if module == LOADING then
    error(("loop or previous error loading module '%s'"):format(name), 2)
  end
  if module then return module end
  local loaders = package.loaders
  if type(loaders) ~= "table" then error("'package.loaders' must be a table", 2) end
  local tried = {}
  local loader
  for i = 1, #loaders do
    loader = loaders[i](name)
    if type(loader) == "function" then break end
    if type(loader) == "string" then tried[#tried + 1] = loader end
    loader = nil
  end
  if not loader then
    error(("module '%s' not found:%s"):format(name, table.concat(tried)), 2)
  end
  loaded[name] = LOADING
  local result = loader(name)
  if result ~= nil then
    loaded[name] = result
  elseif loaded[name] == LOADING then
    loaded[name] = true
  end
  return loaded[name]
end

function _G.dofile(name)
  local chunk, why = loadfile(name)
  if not chunk then error(tostring(why), 0) end
  return chunk()
end
