-- Out of descriptors. Sockets that nobody refers to hold some until they are
-- collected, and they are small: the collector alone would take its time. Loaded when a call finds
-- that there are no more, or when a callback fails.

local native, core = ...

local max, min = math.max, math.min
local collect, ask_others, now = native.collect, native.ask_others, native.now
local timer_start, jobs = native.timer_start, core.get_timing().jobs
local defer, hold = core.defer, core.hold

-- After a collection as many times what it took, but …
local PAUSES = 10
-- … no longer than so many seconds, and so many times what it took, pass before the next.
local PAUSE_SECONDS, PAUSES_LONG = 0.1, 4
-- How long others, once they were asked to collect, are given.
local OTHERS_SECONDS = 0.05
-- How long to wait, at least, before accepting again.
local RETRY_SECONDS = 0.05
-- How long after a failure what it has left behind is collected.
local FAILURE_SECONDS = 0.1

local shortage = {}

local count, not_before = 0, 0
local is_due = false

function shortage.collect()
    local start = now()
    collect()
    local finish = now()
    count = count + 1
    local took = finish - start
    not_before = finish + min(PAUSES * took, PAUSE_SECONDS + PAUSES_LONG * took)
end

-- Seconds until it is time for another collection.
function shortage.pause() return max(not_before - now(), 0) end

-- A call, for which `call` is a table of its own, lacks a descriptor: how many seconds to wait
-- before it tries again; nothing if that is of no use. No call fails because descriptors ran out
-- before a collection was made during it, nor at its timeout, in `left` seconds, because that was
-- put off.
function shortage.relieve(call, left)
    call.began = call.began or count
    if call.began == count then
        local pause = shortage.pause()
        if pause > 0 and pause < left then return pause end
        shortage.collect()
        return 0
    end
    if call.has_asked then return end
    call.has_asked = true
    return ask_others() and OTHERS_SECONDS or nil
end

-- A listen socket lacks a descriptor for what it accepts, as it did before if `has_collected` says
-- so: true if it is to wait until `serve` is called with its record; otherwise it may try again at
-- once.
function shortage.hold_up(serve, record, has_collected)
    local pause = shortage.pause()
    if not has_collected and pause <= 0 then
        shortage.collect()
        return false
    end
    -- The connection stays in the kernel's queue until descriptors are free again. The timer does
    -- not keep the context alive: whoever accepts does.
    if has_collected then ask_others() end
    local _, slot = timer_start(max(pause, RETRY_SECONDS), 0)
    hold(1)
    jobs[slot] = function() defer(serve, record) end
    return true
end

-- Collects soon: a failed coroutine may have left sockets behind, and their peers wait. Keeps
-- nobody alive.
function shortage.collect_soon()
    if is_due then return end
    is_due = true
    local _, slot = timer_start(max(FAILURE_SECONDS, shortage.pause()), 0)
    jobs[slot] = function()
        hold(1) -- what the dispatcher takes back for every timer
        is_due = false
        shortage.collect()
    end
end

return shortage
