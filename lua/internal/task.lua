-- Root coroutines: who waits for what, and who runs next.
--
-- The main chunk and every callback run in a root coroutine. A call that waits registers what it
-- waits for under a token and yields the marker WAIT. In a user coroutine the marker travels up
-- through the wrapped `coroutine.resume` and `coroutine.wrap` to the root, and the answer travels
-- down the same way, so that user code sees an ordinary call. `dispatch` is what a turn calls: it
-- has a root, the looper, pull the turn's events and resume who waited for them. The looper calls
-- callbacks itself; if one waits, another root becomes the looper, and this one goes on as the
-- callback's.
--
-- Does not know what the operations are: see context.lua, tcp.lua and timer.lua.

local native, core = ...

local error, pcall, setmetatable, tostring, type = error, pcall, setmetatable, tostring, type
local unpack = unpack
local raw_create, raw_resume, raw_yield = coroutine.create, coroutine.resume, coroutine.yield
local raw_status, raw_running = coroutine.status, coroutine.running
local isyieldable = coroutine.isyieldable
local traceback = debug.traceback
local next_event, is_ending = native.next_event, native.is_ending
local has_older = native.has_older

local TIMEOUT, C_BOUNDARY = 208, 200

-- Yielded by a call that waits, and by a runner that is done.
local WAIT, IDLE = {}, {}

local RUNNERS_KEPT = 64
local LEVELS_MAX = 10000

-- Coroutines inside each other for which the C stack suffices in any case, whatever C functions
-- they recurse through.
local LEVELS_FREE = 1
local OVERFLOW = "C stack overflow"

local current -- the root coroutine that runs
local looper -- the root coroutine that pulls events
local depth = 0 -- how many user coroutines run inside the root, each inside the one before …
local chain = setmetatable({}, { __mode = "v" }) -- … and which
local parked = setmetatable({}, { __mode = "k" }) -- user coroutines inside a waiting call …
local parked_count = 0 -- … and how many at most
local depth_free = LEVELS_FREE -- down to where coroutines need no second look: 0 if any is parked
local runners = {} -- root coroutines that are done with their callback
local pending = {} -- token → the root, or the callback, that waits for it
local deadlines = {} -- token → the timer that ends its wait
local late = {} -- timers of waits that are over, unless what they wait for has come already
local timers = {} -- timer → token, waiting root, callback, or { callback, arguments, repeats }
local deferred = {} -- { f, arguments… } to call before the turn ends, or in the next one
local last_token = 0
local alive = 0 -- what keeps the context from ending: tokens, timers, registered callbacks
local main_root
local handlers = {} -- event kind → function

-- Raises: an argument is of the wrong type.
local function bad(position, name, expected, value, level)
  local got = type(value)
  error(
    ("bad argument #%d to '%s' (%s expected, got %s)"):format(position, name, expected, got),
    level or 4
  )
end

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

local function finish(before, co, ok, what)
  current, depth = before, 0
  if not ok then
    fail(co, what)
  elseif what == IDLE then
    local n = #runners
    if n < RUNNERS_KEPT then runners[n + 1] = co end
  end
end

-- Resumes a root coroutine. Only from the dispatcher, never from inside another root.
local function run(co, ...)
  local before = current
  current, depth = co, 0
  return finish(before, co, raw_resume(co, ...))
end

-- Pulls events until there are none, or until this root is no longer the looper. Handlers that call
-- a callback do it last, so that nothing of them is left to do if it waits.
local function loop()
  local me = looper
  repeat
    local kind, a, b, c = next_event()
    if kind == nil then return end
    handlers[kind](a, b, c)
  until looper ~= me
end

-- What root coroutines other than the main one run: a function, or events if there is none.
local function runner(f, ...)
  if f then
    f(...)
  else
    loop()
  end
  return runner(raw_yield(IDLE))
end

local function get_runner()
  local n = #runners
  local co = runners[n]
  if co == nil then return raw_create(runner) end
  runners[n] = nil
  return co
end

-- Calls a function in a root coroutine of its own. Only from the dispatcher.
local function call(f, ...)
  return run(get_runner(), f, ...)
end

-- Has the dispatcher call f(a, b, c) soon, outside any root.
local function defer(f, a, b, c)
  deferred[#deferred + 1] = { f, a, b, c }
end

-- Waits until the root is resumed; returns what it is resumed with.
local function suspend()
  return raw_yield(WAIT)
end

-- Waits likewise, as the one who waits for `record` without a token: `resume_waiter` ends it.
local function suspend_on(record)
  record.waiter = current
  alive = alive + 1
  return raw_yield(WAIT)
end

-- Resumes the root that waits for `record` without a token. Only from the dispatcher.
local function resume_waiter(record, ok, value)
  local waiter = record.waiter
  record.waiter = false
  alive = alive - 1
  return run(waiter, ok, value)
end

-- Raises where the C stack cannot be left: here, or in a coroutine that this one runs inside.
local function check_may_wait()
  local may = current ~= nil and isyieldable()
  if may and depth > 0 then
    may = native.is_yieldable(current)
    for i = 1, depth - 1 do
      may = may and native.is_yieldable(chain[i])
    end
  end
  if not may then error(native.strerror(C_BOUNDARY), 3) end
end

-- Registers an operation; `entry` is a callback, or nil for the running root.
local function register(entry)
  local token = last_token + 1
  last_token = token
  pending[token] = entry or current
  alive = alive + 1
  return token
end

local function forget_deadline(token)
  local timer = deadlines[token]
  deadlines[token] = nil
  timers[timer] = nil
  native.timer_cancel(timer)
end

-- Forgets an operation; true if it was still pending.
local function cancel(token)
  if pending[token] == nil then return false end
  pending[token] = nil
  alive = alive - 1
  if deadlines[token] then forget_deadline(token) end
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

-- The same, as the last thing that a handler does.
local function conclude(token, ok, value)
  local entry = pending[token]
  if entry == nil then return end
  pending[token] = nil
  alive = alive - 1
  if deadlines[token] then forget_deadline(token) end
  if type(entry) == "thread" then return run(entry, ok, value) end
  return entry(ok, value)
end

-- Gives an operation a timeout in seconds; 0 for none.
local function set_timeout(token, seconds)
  if seconds > 0 then
    local timer = native.timer_start(seconds, 0)
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

-- The time of a wait is over.
local function expire(id)
  local token = timers[id]
  if token == nil then return end
  timers[id] = nil
  deadlines[token] = nil
  return complete(token, false, TIMEOUT)
end

-- The timer event: see `timers`.
handlers[3] = function(id, repeats)
  local entry = timers[id]
  if entry == nil then return end
  local kind = type(entry)
  if kind == "number" then
    -- What the wait is for may be among what came before, and has not been looked at.
    if not has_older() then return expire(id) end
    late[#late + 1] = id
    return
  end
  if not repeats then
    timers[id] = nil
    alive = alive - 1
  end
  if kind == "thread" then return run(entry) end
  if kind == "function" then return entry() end
  return entry[1](unpack(entry, 2, entry.n))
end

-- A one-shot operation is over.
handlers[6] = conclude

-- One turn. Returns 0 if the context is done, 1 to wait for events, 2 to run again at once; and how
-- many queries wait for an answer.
local function dispatch()
  repeat
    local co = looper
    if co == nil then
      co = get_runner()
      looper = co
    end
    current, depth = co, 0
    local ok, what = raw_resume(co)
    current = nil
    if what ~= IDLE then
      looper = nil
      if not ok then fail(co, what) end
    end
  until what == IDLE
  if late[1] and not has_older() then
    local ids = late
    late = {}
    for i = 1, #ids do expire(ids[i]) end
  end
  -- What is deferred meanwhile waits for the next turn, so that a turn ends.
  local jobs = deferred
  if jobs[1] and not is_ending() then
    deferred = {}
    for i = 1, #jobs do
      local job = jobs[i]
      job[1](job[2], job[3], job[4])
    end
  end
  if is_ending() then return 0, 0 end
  local break_deadlock = core.break_deadlock
  if break_deadlock and alive > 0 and break_deadlock(alive) then return 2, core.unanswered end
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
    parked_count, depth_free = parked_count + 1, 0
    return reenter(co, level, raw_yield(WAIT))
  end
  depth = level - 1
  return ok, ...
end

function reenter(co, level, ...)
  parked[co] = nil
  parked_count = parked_count - 1
  if parked_count == 0 then depth_free = LEVELS_FREE end
  depth, chain[level] = level, co
  return leave(co, level, raw_resume(co, ...))
end

-- Why a coroutine cannot be resumed at this depth, if so.
local function refuse(co, level)
  if parked[co] then return "cannot resume non-suspended coroutine" end
  if level > LEVELS_FREE and (level > LEVELS_MAX or not native.has_stack()) then
    return OVERFLOW
  end
end

local function resume(co, ...)
  if type(co) ~= "thread" then bad(1, "resume", "coroutine", co, 3) end
  local level = depth + 1
  if level > depth_free then
    local why = refuse(co, level)
    if why then return false, why end
  end
  depth, chain[level] = level, co
  return leave(co, level, raw_resume(co, ...))
end

local function unwrap(ok, ...)
  if ok then return ... end
  error((...), 0)
end

-- `leave` for coroutines made with `wrap`.
local function leave_wrapped(co, level, ok, ...)
  if ok and (...) ~= WAIT then
    depth = level - 1
    return ...
  end
  return unwrap(leave(co, level, ok, ...))
end

local function check(co, level)
  local why = refuse(co, level)
  if why then error(why, 3) end
end

local function wrap(f)
  local co = raw_create(f)
  return function(...)
    local level = depth + 1
    if level > depth_free then check(co, level) end
    depth, chain[level] = level, co
    return leave_wrapped(co, level, raw_resume(co, ...))
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

-- A number of seconds; negative ones count as 0. `level` is that of the caller to blame.
local function seconds(value, position, name, level)
  level = level or 3
  local number = type(value) == "number" and value
    or type(value) == "string" and tonumber(value)
    or bad(position, name, "number of seconds", value, level + 1)
  if number ~= number or number == math.huge or number == -math.huge then
    error(
      ("bad argument #%d to '%s' (%s is no time, in seconds)"):format(position, name, number),
      level
    )
  end
  return number > 0 and number or 0
end

core.bad, core.seconds = bad, seconds
core.handlers, core.timers = handlers, timers
core.call, core.complete, core.defer, core.conclude = call, complete, defer, conclude
core.register, core.cancel, core.set_timeout = register, cancel, set_timeout
core.suspend, core.check_may_wait, core.is_waiting = suspend, check_may_wait, is_waiting
core.suspend_on, core.resume_waiter = suspend_on, resume_waiter
core.is_callback, core.hold, core.current = is_callback, hold, get_current
core.dispatch, core.start = dispatch, start
