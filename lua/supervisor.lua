-- Keeps contexts running: starts them again when they end. See docs/api/supervisor.md.
--
--     local supervisor = require "supervisor"
--     local s = supervisor.start {
--       { "worker.lua", "first" },
--       { "worker.lua", "second" },
--       strategy = "one_for_one", intensity = 3, period = 5,
--     }

local native = ...

local bad = native.bad

local context = _G.context
local ipairs, setmetatable, type = ipairs, setmetatable, type
local table, unpack = table, unpack

--- Which contexts are started again with the one that has ended.
local STRATEGIES = {
  one_for_one = function(_, index) return index, index end,
  one_for_all = function(count) return 1, count end,
  rest_for_one = function(count, index) return index, count end,
}

--- Ends after which a child is started again, by its `restart`.
local RESTARTS = {
  permanent = function() return true end,
  transient = function(reason) return reason ~= "normal" end,
  temporary = function() return false end,
}

local KNOWN_STRATEGIES = '"one_for_one", "one_for_all" or "rest_for_one"'
local KNOWN_RESTARTS = '"permanent", "transient" or "temporary"'

local Supervisor = {}
Supervisor.__index = Supervisor

local M = {}

local function start_child(self, index)
  local child = self.children[index]
  local spec = child.spec
  child.handle = context.create(unpack(spec, 1, spec.n or #spec))
  local handle = child.handle
  context.monitor(handle, function(_, reason, detail)
    if child.handle == handle then
      child.handle = nil
      self:on_end(index, reason, detail)
    end
  end)
end

local function stop_child(child)
  local handle = child.handle
  child.handle = nil
  if handle then
    context.destroy(handle, "stopped by its supervisor")
    context.wait(handle)
  end
end

-- True unless there were more restarts lately than there may be.
local function may_restart(self)
  local now = native.now()
  local times = self.times
  times[#times + 1] = now
  while times[1] <= now - self.period do table.remove(times, 1) end
  return #times <= self.intensity
end

local function react(self, index, reason, detail)
  local child = self.children[index]
  if self.on_exit then self.on_exit(index, reason, detail) end
  -- It may run again already, started with another.
  if self.is_over or child.handle then return end
  if not RESTARTS[child.spec.restart or "permanent"](reason) then
    for _, other in ipairs(self.children) do
      if other.handle then return end
    end
    return self:finish("normal")
  end
  if not may_restart(self) then
    return self:finish("intensity", ("%d restarts in %g s"):format(#self.times, self.period))
  end
  local first, last = STRATEGIES[self.strategy](#self.children, index)
  for i = last, first, -1 do stop_child(self.children[i]) end
  for i = first, last do
    if self.is_over then return end
    start_child(self, i)
  end
end

-- Reacts to ends one after the other, as stopping children takes time.
function Supervisor:on_end(index, reason, detail)
  local ended = self.ended
  ended[#ended + 1] = { index, reason, detail }
  if self.is_reacting then return end
  self.is_reacting = true
  while ended[1] and not self.is_over do
    local one = table.remove(ended, 1)
    react(self, one[1], one[2], one[3])
  end
  self.is_reacting = false
end

-- Ends all children, in reverse order.
function Supervisor:finish(reason, detail)
  if self.is_over then return end
  self.is_over = true
  for i = #self.children, 1, -1 do stop_child(self.children[i]) end
  if self.on_finish then self.on_finish(reason, detail) end
end

--- Ends all children; none is started again.
function Supervisor:stop()
  self:finish("stopped")
end

--- The handle of a child; nil while it does not run.
---@param index integer
---@return integer|nil
function Supervisor:handle(index)
  local child = self.children[index]
  return child and child.handle
end

-- Raises unless an option is as it should be.
local function check(condition, name, expected, value)
  if not condition then bad(name, "start", expected, value) end
end

--- Starts contexts, each given as the arguments of context.create, and keeps them running.
---@param options table
---@return table supervisor
function M.start(options)
  if type(options) ~= "table" then bad(1, "start", "table", options) end
  local strategy = options.strategy or "one_for_one"
  check(STRATEGIES[strategy], "strategy", KNOWN_STRATEGIES, strategy)
  local intensity, period = options.intensity or 3, options.period or 5
  local is_count = type(intensity) == "number" and intensity >= 0
  check(is_count, "intensity", "number of restarts", intensity)
  local is_period = type(period) == "number" and period > 0
  check(is_period, "period", "number of seconds above 0", period)
  local children = {}
  for i, spec in ipairs(options) do
    check(type(spec) == "table", "child " .. i, "table", spec)
    local restart = spec.restart or "permanent"
    check(RESTARTS[restart], "restart of child " .. i, KNOWN_RESTARTS, restart)
    children[i] = { spec = spec }
  end
  if not children[1] then bad(1, "start", "table with a child at least", options) end
  local self = setmetatable({
    children = children, strategy = strategy, intensity = intensity, period = period,
    on_exit = options.on_exit, on_finish = options.on_finish, times = {}, ended = {},
  }, Supervisor)
  for i = 1, #children do start_child(self, i) end
  return self
end

return M
