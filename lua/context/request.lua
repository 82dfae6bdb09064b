-- Tracks the query that a root serves, so that its asker gets 207 if the root fails. Loaded by
-- core/dispatch.lua when the first root that serves a query waits, or fails.

local native = ...

local type = type

-- The last queries that a root has taken, this many: what others were answered, or left to
-- somebody.
local QUERIES_MAX = 64

-- Root coroutine → handle and session of a query, or a list of them in turn.
local askers, sessions = {}, {}

local function add(list, from, session)
    local at = list.at
    list[at + 1], list[at + 2] = from, session
    list.at = (at + 2) % (2 * QUERIES_MAX)
end

-- One query, or a list, and more of either: a list, and what stands for its session.
local function join(asker, asked, from, session)
    local list = asker
    if type(list) ~= "table" then list = { asker, asked, at = 2 } end
    if type(from) ~= "table" then
        add(list, from, session)
    else
        for i = 1, #from, 2 do
            add(list, from[i], from[i + 1])
        end
    end
    return list, 0
end

-- A root runs for these, maybe after others.
local function serve(co, asker, asked)
    local before = askers[co]
    if before then
        asker, asked = join(before, sessions[co], asker, asked)
    end
    askers[co], sessions[co] = asker, asked
end

-- It is done, or has failed.
local function stop_serving(co, has_failed)
    local asker, asked = askers[co], sessions[co]
    if not asker then return end
    askers[co], sessions[co] = nil, nil
    if not has_failed then return end
    if type(asker) ~= "table" then return native.refuse(asker, asked) end
    for i = 1, #asker, 2 do
        native.refuse(asker[i], asker[i + 1])
    end
end

return serve, stop_serving, join
