-- timer: sleep, one-shot and repeating timers. Loaded when a script looks one of them up. See
-- docs/api/timer.md.

local native, core = ...

local select, type = select, type
local timer_start, timer_cancel = native.timer_start, native.timer_cancel
local check_may_wait, suspend, hold = core.check_may_wait, core.suspend, core.hold
local seconds, bad, current = core.seconds, core.bad, core.current
local timers = core.get_timing().timers

local SLEEP_MIN = 0.001

local timer = {}

local function cancel_timer(id)
  if timers[id] ~= nil then
    timers[id] = nil
    hold(-1)
    timer_cancel(id)
  end
end

--- Waits for so many seconds, at least one millisecond.
---@param duration number
function timer.sleep(duration)
  duration = seconds(duration, 1, "sleep")
  check_may_wait()
  if duration < SLEEP_MIN then duration = SLEEP_MIN end
  local id = timer_start(duration, 0)
  timers[id] = current()
  hold(1)
  suspend()
end

-- The callback is the last of the arguments from `first` on; what stands before it is passed to it.
local function entry(name, first, ...)
  local n = select("#", ...)
  local callback = n > 0 and select(n, ...) or nil
  if type(callback) ~= "function" then
    bad(first + math.max(n, 1) - 1, name, "function", callback)
  end
  if n == 1 then return callback end
  local arguments = { callback, ... }
  arguments.n = n -- the callback again, behind the last argument, is left out
  return arguments
end

--- Calls `callback` with the arguments between, once, after so many seconds.
---@param delay number
---@param ... any arguments, then the callback
---@return integer id
function timer.timeout(delay, ...)
  delay = seconds(delay, 1, "timeout")
  local job = entry("timeout", 2, ...)
  local id = timer_start(delay, 0)
  timers[id] = job
  hold(1)
  return id
end

--- Calls `callback` first after `interval` seconds and then every `period` seconds; once if
--- `period` is 0, never if both are.
---@param interval number
---@param period number
---@param ... any arguments, then the callback
---@return integer|nil id
function timer.loop(interval, period, ...)
  interval = seconds(interval, 1, "loop")
  period = seconds(period, 2, "loop")
  local job = entry("loop", 3, ...)
  if interval == 0 and period == 0 then return end
  local id = timer_start(interval, period)
  timers[id] = job
  hold(1)
  return id
end

--- Stops a timer. Unknown ids, and those of timers that are over, are ignored.
---@param id integer
function timer.close(id)
  local kind = type(timers[id])
  if kind == "function" or kind == "table" then cancel_timer(id) end
end

core.sleep = timer.sleep

return timer
