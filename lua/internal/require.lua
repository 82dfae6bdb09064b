-- `require` and `dofile` in Lua: the built-in ones call the loaded file from C, where a file could
-- not wait for anything. Loaded when a script calls one of them.

local native = ...

local error, loadfile, package, tostring, type = error, loadfile, package, tostring, type
local concat = table.concat

local LOADING = {}

local modules = {}

-- A script of several files is worth the few bytes: any of them may use coroutines.
native.load_coroutines()

function modules.require(name)
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
    error(("module '%s' not found:%s"):format(name, concat(tried)), 2)
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

function modules.dofile(name)
  local chunk, why = loadfile(name)
  if not chunk then error(tostring(why), 0) end
  return chunk()
end

return modules
