-- timer: sleep, one-shot and repeating timers. Loaded when a script looks one of them up. See
-- docs/api/timer.md.

local native, core = ...

local select, tonumber, type = select, tonumber, type
local timer_start, timer_cancel = native.timer_start, native.timer_cancel
local check_may_wait, suspend, hold = core.check_may_wait, core.suspend, core.hold
local timeout_of, bad, current = core.timeout_of, core.bad, core.current
local jobs = core.get_timing().jobs

local SLEEP_MIN = 0.001
local HUGE = math.huge

-- How many slots there can be: what is above that in a timer's id is no part of its slot.
local SLOTS = 2 ^ 26

local timer = {}

-- A number of seconds; negative ones count as 0.
local function seconds(value, position, name)
    local number = timeout_of(value, position, name)
    return number > 0 and number or 0
end

--- Waits for some seconds, at least one millisecond.
---@param duration number
function timer.sleep(duration, ...)
    core.no_more(2, "sleep", ...)
    duration = seconds(duration, 1, "sleep")
    check_may_wait()
    if duration < SLEEP_MIN then duration = SLEEP_MIN end
    local _, slot = timer_start(duration, 0)
    jobs[slot] = current()
    hold(1)
    suspend()
end

-- The callback is the last of the arguments from `first` on; what stands before it is passed to it.
local function entry(name, first, ...)
    local n = select("#", ...)
    if n == 0 then bad(first, name, "function") end
    local callback = select(n, ...)
    if type(callback) ~= "function" then bad(first + n - 1, name, "function", callback) end
    if n == 1 then return callback end
    local arguments = { callback, ... }
    arguments.n = n -- the callback again, behind the last argument, is left out
    return arguments
end

-- With arguments for the callback, or with wrong ones.
local function timeout_with(delay, ...)
    delay = seconds(delay, 1, "timeout")
    local job = entry("timeout", 2, ...)
    local id, slot = timer_start(delay, 0)
    jobs[slot] = job
    hold(1)
    return id
end

--- Calls `callback` with the arguments between, once, after some seconds.
---@param delay number
---@param ... any arguments, then the callback
---@return integer id
function timer.timeout(delay, ...)
    local job, more = ...
    -- The callback alone, mostly, which is worth a shorter way.
    if
        more
        or type(job) ~= "function"
        or type(delay) ~= "number"
        or not (delay >= 0 and delay < HUGE)
        or select("#", ...) > 1
    then
        return timeout_with(delay, ...)
    end
    local id, slot = timer_start(delay, 0)
    jobs[slot] = job
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
    local id, slot = timer_start(interval, period)
    jobs[slot] = job
    hold(1)
    return id
end

--- Stops a timer. Unknown ids, and those of timers that are over, are ignored.
---@param id integer
function timer.close(id)
    if type(id) ~= "number" or id % 1 ~= 0 then
        local number = type(id) == "string" and tonumber(id)
        if not number or number % 1 ~= 0 then bad(1, "close", "timer id", id) end
        id = number
    end
    local kind = type(jobs[id % SLOTS + 1])
    if kind ~= "function" and kind ~= "table" then return end
    local slot = timer_cancel(id)
    if slot then
        jobs[slot] = nil
        hold(-1)
    end
end

--- Seconds of a clock that is never set.
---@return number
timer.now = native.now

--- Seconds since 1970.
---@return number
timer.time = native.wall_clock

core.sleep = timer.sleep

return timer
