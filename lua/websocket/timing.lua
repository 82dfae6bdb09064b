-- Websockets whose peers must give signs of life. Loaded with the first of them.

local native, core = ...

local format, max, min, HUGE = string.format, math.max, math.min, math.huge
local defer, hold, jobs = core.defer, core.hold, core.get_timing().jobs
local timer_start, timer_cancel, silence =
    native.timer_start, native.timer_cancel, native.websocket_silence
local now = native.now

local TIMED_OUT, AWAY = 40, 1001
-- Timers are not exact; the next look is at least this many seconds away.
local LEAST = 0.001

local timing = {}

-- Looks again after `seconds`. The timer keeps nobody alive: whoever waits for messages does.
local function look_later(state, seconds, look)
    local timer, slot = timer_start(max(seconds, LEAST), 0)
    state.timer = timer
    jobs[slot] = function()
        hold(1) -- what the dispatcher takes back for every timer
        state.timer = nil
        return look()
    end
end

--- Has a ping sent after some seconds of silence, and the connection ended after more.
function timing.start(record, options, finish, say_close, write)
    local state, id = record.pieces, record.id
    local interval, limit = options.ping_interval, options.idle_timeout
    -- A ping that is not answered by anything within another interval.
    local most = min(limit or HUGE, interval and 2 * interval or HUGE)
    local asked -- when a ping was sent that nothing has followed
    local is_sure = false

    local function judge()
        local quiet = not record.closed and silence(id)
        if not quiet then return end -- closed, or collected
        if quiet + LEAST >= most then
            if not is_sure then
                -- Timers go before what has come, of which there may be some by now.
                is_sure = true
                defer(record.serve, record)
                return defer(judge)
            end
            local reason = format("nothing came for %g s", most)
            say_close(id, AWAY, reason)
            return finish(record, TIMED_OUT, reason)
        end
        is_sure = false
        local wait = most - quiet
        if asked and quiet < now() - asked then asked = nil end
        if interval and not asked then
            local rest = interval - quiet
            if rest <= LEAST then
                asked, rest = now(), interval
                write(id, "", "ping", 0)
            end
            wait = min(wait, rest)
        end
        look_later(state, wait, judge)
    end
    look_later(state, min(interval or HUGE, most), judge)
end

function timing.stop(state)
    local timer = state.timer
    if not timer then return end
    state.timer = nil
    local slot = timer_cancel(timer)
    if slot then jobs[slot] = nil end
end

return timing
