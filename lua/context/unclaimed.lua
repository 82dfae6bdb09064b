-- Messages that have come and that nobody receives yet. Loaded with the first of them by
-- lua/context/init.lua, whose receivers these are.

local native, core, receivers, hand_over_waiting = ...

local call = core.call

local ANY = 0

local self_handle = native.self()

-- Messages by arrival, from number `first` to `last`; and for each sender the arrivals that are
-- his.
local mail = { first = 1, last = 0 }
local arrived = {}
local by_sender = {}

-- Queries of this context to itself among the kept mail.
local own_queries = 0

local break_deadlock

function mail.keep(from, session, value)
    if from == self_handle and session > 0 then
        own_queries = own_queries + 1
        core.break_deadlock = break_deadlock
    end
    mail.last = mail.last + 1
    arrived[mail.last] = { from, session, value, native.unreceive(mail.last) }
    local own = by_sender[from]
    if not own then
        own = { first = 1, last = 0 }
        by_sender[from] = own
    end
    own.last = own.last + 1
    own[own.last] = mail.last
end

-- The oldest kept message from `h` (or from anybody), taken out.
function mail.take(h)
    if mail.first > mail.last then return end
    local at
    if h == ANY then
        at = mail.first
        while arrived[at] == nil do
            at = at + 1
        end
    else
        local own = by_sender[h]
        if not own then return end
        while own.first <= own.last and arrived[own[own.first]] == nil do
            own[own.first] = nil
            own.first = own.first + 1
        end
        if own.first > own.last then
            by_sender[h] = nil
            return
        end
        at = own[own.first]
    end
    local message = arrived[at]
    arrived[at] = nil
    local own = by_sender[message[1]]
    if own and own[own.first] == at then
        own[own.first] = nil
        own.first = own.first + 1
        if own.first > own.last then by_sender[message[1]] = nil end
    end
    while mail.first <= mail.last and arrived[mail.first] == nil do
        mail.first = mail.first + 1
    end
    if mail.first > mail.last then
        mail.first, mail.last = 1, 0
    end
    native.received(at, message[4])
    if message[1] == self_handle and message[2] > 0 then own_queries = own_queries - 1 end
    return message
end

-- Called when a turn has nothing left to do. If all that keeps the context alive are its own
-- queries to itself, nobody will ever receive them: they get "no reply".
function break_deadlock(alive)
    if own_queries == 0 or own_queries < alive then return false end
    for _ = 1, own_queries do
        local message = mail.take(self_handle)
        if message[2] > 0 then native.refuse(self_handle, message[2]) end
    end
    return true
end

-- Gives kept mail to a callback that has just been set, for as long as it stays.
function mail.drain(h)
    local r = receivers[h]
    while r and r.callback do
        local message = mail.take(h)
        if not message then return end
        if not hand_over_waiting(r, message[1], message[2], message[3]) then
            local value, from, session = message[3], message[1], message[2]
            if session > 0 then core.begin_serving(from, session) end
            call(r.callback, true, value, from, session, h)
        end
    end
end

return mail
