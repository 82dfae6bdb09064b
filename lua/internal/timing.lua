-- What happens when a timer is due, and the timeouts of calls that wait. Loaded with the first of
-- either.

local native, core = ...

local type, unpack = type, unpack
local timer_start, timer_cancel = native.timer_start, native.timer_cancel
local has_older = native.has_older
local complete, hold, run = core.complete, core.hold, core.run

local TIMEOUT = 208

local timers = {} -- timer → token, waiting root, callback, or { callback, arguments… }
local deadlines = {} -- token → the timer that ends its wait

-- Timers of waits that are over, unless what they wait for has come already: `late`.
local timing = { timers = timers, late = {} }

function timing.set(token, seconds)
  local timer = timer_start(seconds, 0)
  timers[timer] = token
  deadlines[token] = timer
end

-- What the token stands for is over.
function timing.forget(token)
  local timer = deadlines[token]
  if timer == nil then return end
  deadlines[token] = nil
  timers[timer] = nil
  timer_cancel(timer)
end

-- The time of a wait is over.
local function expire(id)
  local token = timers[id]
  if token == nil then return end
  timers[id] = nil
  deadlines[token] = nil
  return complete(token, false, TIMEOUT)
end

function timing.expire_late()
  if has_older() then return end
  local ids = timing.late
  timing.late = {}
  for i = 1, #ids do expire(ids[i]) end
end

-- The timer event: see `timers`.
core.handlers[3] = function(id, repeats)
  local entry = timers[id]
  if entry == nil then return end
  local kind = type(entry)
  if kind == "number" then
    -- What the wait is for may be among what came before, and has not been looked at.
    if not has_older() then return expire(id) end
    local late = timing.late
    late[#late + 1] = id
    return
  end
  if not repeats then
    timers[id] = nil
    hold(-1)
  end
  if kind == "thread" then return run(entry) end
  if kind == "function" then return entry() end
  return entry[1](unpack(entry, 2, entry.n))
end

return timing
