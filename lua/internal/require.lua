-- `require` and `dofile` in Lua: the built-in ones call the loaded file from C, where a file could
-- not wait for anything. Loaded when a script calls one of them.

local native, core = ...

local error, loadfile, package, tostring, type = error, loadfile, package, tostring, type
local getmetatable, setmetatable = getmetatable, setmetatable
local concat, traceback, xpcall = table.concat, debug.traceback, xpcall

local LOADING = {}

local modules = {}

-- What is being loaded, by name: the root coroutine that does it, and the tokens of others that
-- wait until it is there. And what a root coroutine waits for.
local loading, awaited = {}, {}

local function fail(name, level)
  error(("loop or previous error loading module '%s'"):format(name), level + 1)
end

-- Waits until another root coroutine has loaded a module. Who waits for itself, by way of others
-- or not, is in a loop.
local function await(name)
  local load, me = loading[name], core.current()
  local other = load
  while other do
    if other.root == me then fail(name, 3) end
    other = awaited[other.root]
  end
  if not load then fail(name, 3) end
  core.check_may_wait()
  load[#load + 1] = core.register()
  awaited[me] = load
  core.suspend()
  awaited[me] = nil
end

-- Has those go on who wait for a module, which is there, or has failed.
local function finish(name)
  local load = loading[name]
  loading[name] = nil
  for i = 1, #load do core.defer(core.complete, load[i], true) end
end

-- How many modules, each for the one before, a root coroutine is loading.
local depths = {}

-- An error passes through: where it was raised is kept for the report.
local function note(message)
  local depth, passing = depths[core.current()], core.passing
  if passing and passing.message == message and passing.depth == depth + 1 then
    passing.depth = depth
  else
    core.passing = { message = message, depth = depth, trace = traceback("", 2) }
  end
  return message
end

-- The modules that come with LuaJIT are in the binary; they fit this VM alone, so that files of
-- the same names are not looked for. Nothing is made of them before they are asked for.
if not getmetatable(package.preload) then
  setmetatable(package.preload, { __index = function(_, name) return native.load_jit(name) end })
end

-- A script of several files is worth the few bytes: any of them may use coroutines.
native.load_coroutines()
native.list()

function modules.require(name)
  if type(name) ~= "string" then
    error(("bad argument #1 to 'require' (string expected, got %s)"):format(type(name)), 2)
  end
  local loaded = package.loaded
  local module = loaded[name]
  if module == LOADING then
    await(name)
    module = loaded[name]
    if module == LOADING then fail(name, 2) end
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
  native.look_at(loader)
  loaded[name] = LOADING
  local me = core.current()
  local depth = depths[me] or 0
  loading[name], depths[me] = { root = me }, depth + 1
  local ok, result = xpcall(loader, note, name)
  depths[me] = depth > 0 and depth or nil
  finish(name)
  if not ok then error(result, 0) end
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
  native.look_at(chunk)
  return chunk()
end

return modules
