-- Root coroutines: who waits for what, and who runs next.
--
-- The main chunk and every callback run in a root coroutine. A call that waits registers what it
-- waits for under a token and yields the marker WAIT. In a user coroutine the marker travels up
-- through the wrapped `coroutine.resume` and `coroutine.wrap` to the root, and the answer travels
-- down the same way, so that user code sees an ordinary call. `dispatch` is what a turn calls: it
-- pulls the turn's events and resumes who waited for them.
--
-- Does not know what the operations are: see context.lua, tcp.lua and timer.lua.

local native, core = ...

local error, pcall, setmetatable, tostring, type = error, pcall, setmetatable, tostring, type
local unpack = unpack
local raw_create, raw_resume, raw_yield = coroutine.create, coroutine.resume, coroutine.yield
local raw_status, raw_running = coroutine.status, coroutine.running
local isyieldable = coroutine.isyieldable
local traceback = debug.traceback
local next_event, strerror = native.next_event, native.strerror
local is_yieldable, has_stack = native.is_yieldable, native.has_stack
local timer_start, timer_cancel = native.timer_start, native.timer_cancel

local TIMEOUT, C_BOUNDARY = 208, 200

-- Yielded by a call that waits, and by a runner that is done.
local WAIT, IDLE = {}, {}

local RUNNERS_KEPT = 64
local LEVELS_MAX = 10000

local current -- the root coroutine that runs
local depth = 0 -- how many user coroutines run inside it, each inside the one before …
local chain = {} -- … and which
local parked = setmetatable({}, { __mode = "k" }) -- user coroutines inside a waiting call
local runners = {} -- root coroutines that are done with their callback
local pending = {} -- token → the root, or the callback, that waits for it
local deadlines = {} -- token → the timer that ends its wait
local timers = {} -- timer → token, waiting root, callback, or { callback, arguments, repeats }
local deferred = {} -- { f, arguments… } to call before the turn ends, or in the next one
local last_token = 0
local alive = 0 -- what keeps the context from ending: tokens, timers, registered callbacks
local main_root
local handlers = {} -- event kind → function

-- Turns an error value into text, whatever its __tostring does.
local function describe(value)
  if type(value) == "string" then return value end
  local ok, text = pcall(tostring, value)
  if ok and type(text) == "string" then return text end
  return "(error object is a " .. type(value) .. " value)"
end

local function fail(co, message)
  local text = traceback(co, describe(message))
  -- The runtime's own frames are noise to whoever reads this.
  text = text:gsub("\n\t%[node%-lua%][^\n]*", ""):gsub("\n\t%[C%]: in function '[error]*'", "")
  native.report(text, co == main_root)
end

local function finish(co, ok, what)
  current = nil
  if not ok then
    fail(co, what)
  elseif what == IDLE then
    local n = #runners
    if n < RUNNERS_KEPT then runners[n + 1] = co end
  end
end

-- Resumes a root coroutine. Only from the dispatcher, never from inside a root.
local function run(co, ...)
  current, depth = co, 0
  return finish(co, raw_resume(co, ...))
end

local function runner(f, ...)
  f(...)
  return runner(raw_yield(IDLE))
end

-- Calls a function in a root coroutine of its own. Only from the dispatcher.
local function call(f, ...)
  local n = #runners
  local co = runners[n]
  if co then
    runners[n] = nil
  else
    co = raw_create(runner)
  end
  return run(co, f, ...)
end

-- Has the dispatcher call f(a, b, c) soon, outside any root.
local function defer(f, a, b, c)
  deferred[#deferred + 1] = { f, a, b, c }
end

-- Waits until the root is resumed; returns what it is resumed with.
local function suspend()
  return raw_yield(WAIT)
end

-- Raises where the C stack cannot be left: here, or in a coroutine that this one runs inside.
local function check_may_wait()
  local may = current ~= nil and isyieldable()
  if may and depth > 0 then
    may = is_yieldable(current)
    for i = 1, depth - 1 do
      may = may and is_yieldable(chain[i])
    end
  end
  if not may then error(strerror(C_BOUNDARY), 3) end
end

-- Registers an operation; `entry` is a callback, or nil for the running root.
local function register(entry)
  local token = last_token + 1
  last_token = token
  pending[token] = entry or current
  alive = alive + 1
  return token
end

-- Forgets an operation; true if it was still pending.
local function cancel(token)
  if pending[token] == nil then return false end
  pending[token] = nil
  alive = alive - 1
  local timer = deadlines[token]
  if timer then
    deadlines[token] = nil
    timers[timer] = nil
    timer_cancel(timer)
  end
  return true
end

-- Ends an operation: resumes, or calls, who waits for it. Only from the dispatcher.
local function complete(token, ...)
  local entry = pending[token]
  if entry == nil then return end
  cancel(token)
  if type(entry) == "thread" then return run(entry, ...) end
  return call(entry, ...)
end

-- Gives an operation a timeout in seconds; 0 for none.
local function set_timeout(token, seconds)
  if seconds > 0 then
    local timer = timer_start(seconds, 0)
    timers[timer] = token
    deadlines[token] = timer
  end
end

local function is_waiting(token)
  return pending[token] ~= nil
end

local function is_callback(token)
  return type(pending[token]) == "function"
end

-- What keeps the context alive beside operations: registered callbacks and timers.
local function hold(count)
  alive = alive + count
end

local function get_current()
  return current
end

-- The timer event: see `timers`.
handlers[3] = function(id, repeats)
  local entry = timers[id]
  if entry == nil then return end
  local kind = type(entry)
  if kind == "number" then
    timers[id] = nil
    deadlines[entry] = nil
    return complete(entry, false, TIMEOUT)
  end
  if not repeats then
    timers[id] = nil
    alive = alive - 1
  end
  if kind == "thread" then return run(entry) end
  if kind == "function" then return call(entry) end
  return call(entry[1], unpack(entry, 2, entry.n))
end

-- A one-shot operation is over.
handlers[6] = complete

-- One turn. Returns 0 if the context is done, 1 to wait for events, 2 to run again at once; and how
-- many queries wait for an answer.
local function dispatch()
  local kind, a, b, c = next_event()
  while kind do
    handlers[kind](a, b, c)
    kind, a, b, c = next_event()
  end
  -- What is deferred meanwhile waits for the next turn, so that a turn ends.
  local jobs = deferred
  if jobs[1] then
    deferred = {}
    for i = 1, #jobs do
      local job = jobs[i]
      job[1](job[2], job[3], job[4])
    end
  end
  if native.is_ending() then return 0, 0 end
  if alive > 0 and core.break_deadlock(alive) then return 2, core.unanswered end
  if deferred[1] then return 2, core.unanswered end
  return alive > 0 and 1 or 0, core.unanswered
end

-- Starts the main chunk.
local function start(f, ...)
  main_root = raw_create(f)
  run(main_root, ...)
end

-- User coroutines -------------------------------------------------------------------------------

local reenter

-- What follows a resume of `co` at depth `level`: hands a wait on upward.
local function leave(co, level, ok, ...)
  if ok and (...) == WAIT then
    parked[co] = true
    return reenter(co, level, raw_yield(WAIT))
  end
  depth = level - 1
  return ok, ...
end

function reenter(co, level, ...)
  parked[co] = nil
  depth, chain[level] = level, co
  return leave(co, level, raw_resume(co, ...))
end

local function resume(co, ...)
  if parked[co] then return false, "cannot resume non-suspended coroutine" end
  local level = depth + 1
  if level > 1 and (level > LEVELS_MAX or not has_stack()) then return false, "C stack overflow" end
  depth, chain[level] = level, co
  return leave(co, level, raw_resume(co, ...))
end

local function unwrapped(ok, ...)
  if ok then return ... end
  error((...), 0)
end

local function wrap(f)
  local co = raw_create(f)
  return function(...)
    if parked[co] then error("cannot resume non-suspended coroutine", 2) end
    local level = depth + 1
    if level > 1 and (level > LEVELS_MAX or not has_stack()) then error("C stack overflow", 2) end
    depth, chain[level] = level, co
    return unwrapped(leave(co, level, raw_resume(co, ...)))
  end
end

local function yield(...)
  if depth == 0 then error("attempt to yield from outside a coroutine", 2) end
  return raw_yield(...)
end

local function status(co)
  if parked[co] then return "normal" end
  return raw_status(co)
end

coroutine.resume = resume
coroutine.wrap = wrap
coroutine.yield = yield
coroutine.status = status
coroutine.isyieldable = function()
  return depth > 0 and isyieldable()
end

-- A root that is not inside a user coroutine counts as the main one, as in plain Lua.
coroutine.running = function()
  if depth == 0 then return nil end
  return raw_running()
end

-- Checks of arguments -----------------------------------------------------------------------------

local function bad(position, name, expected, value, level)
  local got = type(value)
  error(
    ("bad argument #%d to '%s' (%s expected, got %s)"):format(position, name, expected, got),
    level or 4
  )
end

-- A number of seconds; negative ones count as 0.
local function seconds(value, position, name)
  local number = type(value) == "number" and value
    or type(value) == "string" and tonumber(value)
    or bad(position, name, "number of seconds", value)
  if number ~= number or number == math.huge or number == -math.huge then
    error(
      ("bad argument #%d to '%s' (%s is no time, in seconds)"):format(position, name, number),
      3
    )
  end
  return number > 0 and number or 0
end

core.bad, core.seconds = bad, seconds
core.handlers, core.timers = handlers, timers
core.call, core.complete, core.defer, core.run = call, complete, defer, run
core.register, core.cancel, core.set_timeout = register, cancel, set_timeout
core.suspend, core.check_may_wait, core.is_waiting = suspend, check_may_wait, is_waiting
core.is_callback, core.hold, core.current = is_callback, hold, get_current
core.dispatch, core.start = dispatch, start
