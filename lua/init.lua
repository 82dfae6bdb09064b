-- Assembles the script API in a new state. Returns what a turn calls, and what starts a script.

local native = ...
local core = {}

local getmetatable, next, setmetatable = getmetatable, next, setmetatable

local function load(name) return native.load(name)(native, core) end

-- Most contexts use little of the library: a module fills in what it lacks, from the chunk of that
-- name, when something is looked up that it does not have. Returns what does so at once.
function core.lazy(module, name)
  local mine = {}
  local is_loaded = false
  local function load_rest()
    if is_loaded then return end
    is_loaded = true
    if getmetatable(module) == mine then setmetatable(module, nil) end
    for key, value in next, load(name) do
      if module[key] == nil then module[key] = value end
    end
  end
  function mine.__index(_, key)
    load_rest()
    return module[key]
  end
  setmetatable(module, mine)
  return load_rest
end

load("internal/task")
load("internal/require")

local context = load("context")
local timer = load("timer")
core.sleep = timer.sleep
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

return core.dispatch, core.start
