-- User coroutines: `coroutine.resume`, `wrap` and their like, through which waiting calls pass.
--
-- A call that waits inside a coroutine yields WAIT; whoever has resumed that coroutine yields it
-- on, up to the root, and hands the answer down. See internal/task.lua, which loads this when a
-- script uses coroutines, and puts what is returned first in place of the functions of those names.

local native, WAIT, raw_create, raw_resume, raw_yield, isyieldable, raw_status, raw_running = ...

local error, select, setmetatable, type = error, select, setmetatable, type

local LEVELS_MAX = 10000

-- Coroutines inside each other for which the C stack suffices in any case, whatever C functions
-- they recurse through: each, and the root, may take 60 MiB of 256.
local LEVELS_FREE = 2
local OVERFLOW = "C stack overflow"

-- Yielded after WAIT by a call that asks whether it may wait: see `may_wait`.
local ASK = {}

-- How many coroutines run inside the root, each inside the one before: 0 again when a root waits.
local depth = 0
local parked = setmetatable({}, { __mode = "k" }) -- those inside a waiting call …
local parked_count = 0 -- … and how many at most
local depth_free = LEVELS_FREE -- down to where coroutines need no second look: 0 if any is parked

local reenter, answer

-- What follows a resume of `co` at depth `level`: hands a wait on upward.
local function leave(co, level, ok, ...)
  if ok and (...) == WAIT then
    if select(2, ...) == ASK then return answer(co, level) end
    parked[co] = true
    parked_count, depth_free, depth = parked_count + 1, 0, level - 1
    return reenter(co, level, raw_yield(WAIT))
  end
  depth = level - 1
  return ok, ...
end

function reenter(co, level, ...)
  parked[co] = nil
  parked_count = parked_count - 1
  if parked_count == 0 then depth_free = LEVELS_FREE end
  depth = level
  return leave(co, level, raw_resume(co, ...))
end

-- Tells `co` whether a wait can pass through the coroutine that runs here, and through those above.
-- `depth` stays that of the one who asks: nobody else runs meanwhile.
function answer(co, level)
  local may = isyieldable()
  if may and level > 1 then may = raw_yield(WAIT, ASK) end
  return leave(co, level, raw_resume(co, may))
end

-- Why a coroutine cannot be resumed at this depth, if so. Where there is room for one there is for
-- LEVELS_FREE more, so that only every third level need ask.
local function refuse(co, level)
  if parked[co] then return "cannot resume non-suspended coroutine" end
  if level > LEVELS_MAX or level % 3 == 0 and not native.has_stack() then
    return OVERFLOW
  end
end

local function resume(co, ...)
  if type(co) ~= "thread" then error("bad argument #1 to 'resume' (coroutine expected)", 2) end
  local level = depth + 1
  if level > depth_free and (level % 3 == 0 or depth_free == 0) then
    local why = refuse(co, level)
    if why then return false, why end
  end
  depth = level
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
    if level > depth_free and (level % 3 == 0 or depth_free == 0) then check(co, level) end
    depth = level
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

local function is_yieldable()
  return depth > 0 and isyieldable()
end

-- A root that is not inside a user coroutine counts as the main one, as in plain Lua.
local function running()
  if depth == 0 then return nil end
  return raw_running()
end

-- Whether a wait can pass from the coroutine that runs, which can be left, up to and through
-- `root`. Who is in between is not kept in mind, because that would make every resume dearer: those
-- who resume each other ask upward, on the way that the wait will take.
local function may_wait(root)
  if depth < 2 then return depth == 0 or native.is_yieldable(root) end
  return raw_yield(WAIT, ASK)
end

return {
  resume = resume,
  wrap = wrap,
  yield = yield,
  status = status,
  isyieldable = is_yieldable,
  running = running,
}, may_wait
