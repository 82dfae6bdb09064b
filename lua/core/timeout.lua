-- What happens when a timer is due, and the timeouts of calls that wait. Loaded with the first of
-- either.

local native, core = ...

local type, unpack = type, unpack
local timer_start, timer_cancel = native.timer_start, native.timer_cancel
local has_older, take_due = native.has_older, native.take_due
local complete, hold, run, is_looper = core.complete, core.hold, core.run, core.is_looper

local TIMEOUT = 208

-- By slot, which is a timer's until it was called or cancelled: a token, the root that waits, a
-- callback, or { callback, arguments… }.
local jobs = {}
local deadlines = {} -- token → the timer that ends its wait

-- Slots of timers that are due; negative ones repeat. Those up to `at` have been called.
local due, at, count = {}, 0, 0

-- Tokens of waits whose time is over, unless what they wait for has come already: `late`.
local timing = { jobs = jobs, late = {} }

function timing.set(token, seconds)
    local timer, slot = timer_start(seconds, 0)
    jobs[slot] = token
    deadlines[token] = timer
end

-- What the token stands for is over.
function timing.forget(token)
    local timer = deadlines[token]
    if timer == nil then return end
    deadlines[token] = nil
    local slot = timer_cancel(timer)
    if slot then jobs[slot] = nil end
end

-- The time of a wait is over.
local function expire(token)
    if deadlines[token] == nil then return end
    deadlines[token] = nil
    return complete(token, false, TIMEOUT)
end

function timing.expire_late()
    if has_older() then return end
    local tokens = timing.late
    timing.late = {}
    for i = 1, #tokens do
        expire(tokens[i])
    end
end

-- The context ends: what is due is not called any more.
function timing.stop() at = count end

local function call_other(job, kind)
    if kind == "thread" then return run(job) end
    if kind == "table" then return job[1](unpack(job, 2, job.n)) end
    -- What the wait is for may be among what came before, and has not been looked at.
    if not has_older() then return expire(job) end
    local late = timing.late
    late[#late + 1] = job
end

-- What this calls can be named where it ends with a call that raises: see src/vm/blame.rs.
local function call(job) job() end

local TIMERS = 3

-- Timers are due: calls them, as the dispatcher, or until another root has become that.
core.handlers[TIMERS] = function()
    local me = core.current()
    repeat
        if at == count then
            at, count = 0, take_due(due, jobs)
            if count == 0 then return end
        end
        at = at + 1
        local slot = due[at]
        local repeats = slot < 0
        if repeats then slot = -slot end
        local job = jobs[slot]
        if job ~= nil then
            local kind = type(job)
            if not repeats then
                jobs[slot] = nil
                if kind ~= "number" then hold(-1) end
            end
            if kind == "function" then
                call(job)
            else
                call_other(job, kind)
            end
        end
    until not is_looper(me)
end

return timing
