-- Assembles the script API in a new state. Returns what a turn calls, and what starts a script.

local native = ...
local core = {}

local getmetatable, next, rawget, setmetatable = getmetatable, next, rawget, setmetatable

local function load(name) return native.load(name)(native, core) end

-- Most contexts use little of the library: a module fills in what it lacks, from the chunks of these
-- names one after the other, when something is looked up that it does not have. Returns what loads
-- all of them at once.
function core.lazy(module, ...)
  local names = { ... }
  local mine = {}
  local at = 1
  local function load_next()
    local name = names[at]
    if not name then return false end
    at = at + 1
    if not names[at] and getmetatable(module) == mine then setmetatable(module, nil) end
    for key, value in next, load(name) do
      if rawget(module, key) == nil then module[key] = value end
    end
    return true
  end
  function mine.__index(_, key)
    while rawget(module, key) == nil and load_next() do end
    return rawget(module, key)
  end
  setmetatable(module, mine)
  return function()
    while load_next() do end
  end
end

load("internal/task")
load("internal/ffi")

local context = load("context")
local timer = {}
local load_timer = core.lazy(timer, "timer")
function core.sleep(seconds)
  load_timer() -- which replaces this function
  return core.sleep(seconds)
end
local buffer = load("buffer")

-- The sockets' code is a third of the library, and most contexts have none: the module loads itself
-- into its table when its first function is looked up.
local tcp = {}
core.tcp = tcp
local function load_tcp()
  setmetatable(tcp, nil)
  load("tcp")
end
setmetatable(tcp, {
  __index = function(_, name)
    load_tcp()
    return tcp[name]
  end,
  -- What a script puts in the place of a function must not be overwritten by a later load.
  __newindex = function(_, name, value)
    load_tcp()
    tcp[name] = value
  end,
})

local loaded = package.loaded
_G.context, loaded.context = context, context
_G.timer, loaded.timer = timer, timer
_G.tcp, loaded.tcp = tcp, tcp
_G.buffer, loaded.buffer = buffer, buffer

local modules
local function get_modules()
  modules = modules or load("internal/require")
  return modules
end
function _G.require(...) return get_modules().require(...) end
function _G.dofile(...) return get_modules().dofile(...) end

return core.dispatch, core.start
