-- Headers and bodies of requests and responses. Loaded with the first of either.

local native, core = ...

local pcall, rawget, setmetatable, type = pcall, rawget, setmetatable, type
local remove = table.remove
local complete, defer = core.complete, core.defer
local bad, raise, strerror = core.bad, core.raise, native.strerror
local getmetatable = debug.getmetatable
local lower, concat, format, match = string.lower, table.concat, string.format, string.match
local register, cancel, suspend, set_timeout =
    core.register, core.cancel, core.suspend, core.set_timeout
local check_may_wait, timeout_of, no_more = core.check_may_wait, core.timeout_of, core.no_more

local END_OF_FILE, INVALID, MESSAGE_TOO_LONG, TIMEOUT = 1, 18, 21, 208
-- The statuses of final responses.
local STATUS_MIN, STATUS_MAX = 2e2, 999
-- The most bytes that `body`, `text` and `json` take by default.
local BODY_MAX = 16 * 2 ^ 20
-- Pieces of a body below so many bytes are put together, so many at a time.
local SMALL, FEW = 1024, 1024

local M = {}

-- Headers -----------------------------------------------------------------------------------------

local lists = setmetatable({}, { __mode = "k" }) -- headers → name → all of its values

local function all(headers, name)
    if type(headers) ~= "table" then bad(1, "all", "table of headers", headers) end
    if type(name) ~= "string" then bad(2, "all", "name of a header", name) end
    name = lower(name)
    local known = lists[headers]
    local values = known and known[name]
    local copy = {}
    if values then
        for i = 1, #values do
            copy[i] = values[i]
        end
        return copy
    end
    return { rawget(headers, name) }
end

local Headers = { __metatable = false }

function Headers.__index(headers, name)
    if type(name) ~= "string" then return end
    local value = rawget(headers, lower(name))
    if value == nil and name == "all" then return all end
    return value
end

function M.new_headers(joined, several)
    if not joined then return end
    lists[joined] = several
    return setmetatable(joined, Headers)
end

-- Raises for a table of headers with an `__index`, which would not be seen. Headers of requests and
-- responses have one that finds nothing else.
function M.check_plain(headers, what, name)
    if type(headers) == "table" and getmetatable(headers) ~= Headers then
        native.check_plain(what, name, headers)
    end
end

-- Bodies ------------------------------------------------------------------------------------------

-- Request or response → what a failed call has read of its body: the next call begins with that.
local returned = setmetatable({}, { __mode = "k" })

-- Request or response → the token of the call that waits for more of its body; and the tokens of
-- those that wait for their turn.
local waiting, queues = setmetatable({}, { __mode = "k" }), setmetatable({}, { __mode = "k" })
M.waiting = waiting

--- Ends reading: a call that waits fails with this code.
function M.forget(owner, code)
    returned[owner] = nil
    if waiting[owner] then defer(complete, waiting[owner], false, code) end
end

-- Gives the next call in the queue its turn.
local function pass_on(owner)
    local others = queues[owner]
    local token = others and remove(others, 1)
    waiting[owner] = token
    if not token then
        queues[owner] = nil
    else
        defer(complete, token, true)
    end
end

-- Waits for a turn, for this many seconds at most; 0 for ever.
local function wait_in_line(owner, seconds)
    check_may_wait()
    local token = register()
    local others = queues[owner] or {}
    queues[owner] = others
    others[#others + 1] = token
    set_timeout(token, seconds)
    local ok, code = suspend()
    if ok then return true end
    if waiting[owner] == token then pass_on(owner) end
    for i = #others, 1, -1 do
        if others[i] == token then remove(others, i) end
    end
    return false, code
end

-- Why a body is incomplete.
local function reason(code)
    if code == TIMEOUT then return strerror(code) end
    return "a body has not come whole: " .. strerror(code)
end

-- The functions that read a body, by `read(owner, token)`, which is like native.http_read. A piece
-- may take `limit(owner)` seconds, if that is given; `give_up(owner)`, if that is given, is called
-- after a wait in vain.
function M.bodies(read, limit, give_up)
    local B = {}

    -- The next piece of a body, a buffer; or false and a code.
    local function next_piece(owner, timeout)
        if timeout == 0 and limit then timeout = limit(owner) end
        local deadline = timeout > 0 and native.now() + timeout
        local has_turn = false
        if waiting[owner] then
            local ok, code = wait_in_line(owner, timeout)
            if not ok then return false, code end
            has_turn = true
        end
        while true do
            local token = register()
            local data, code = returned[owner], nil
            returned[owner] = nil
            if not data then
                data, code = read(owner, token)
            end
            if not data and not code then
                check_may_wait(token)
                waiting[owner], has_turn = token, true
                local left = deadline and deadline - native.now()
                local ok, why = false, TIMEOUT
                if not left or left > 0 then
                    set_timeout(token, left or 0)
                    ok, why = suspend()
                end
                if not ok then
                    data, code = false, why
                    if give_up then give_up(owner) end
                end
            end
            if data or code then
                cancel(token)
                if has_turn then pass_on(owner) end
                return data, code
            end
        end
    end

    function B.reader(name, check)
        return function(owner, timeout, ...)
            check(owner, name)
            no_more(3, name, ...)
            timeout = type(timeout) == "nil" and 0 or timeout_of(timeout, 2, name)
            if timeout < 0 then return false, TIMEOUT end
            local data, code = next_piece(owner, timeout)
            if data then return true, data end
            return false, code
        end
    end

    -- The iterator over the pieces of a body; raises if the body is incomplete.
    function B.chunks(owner)
        return function()
            local data, code = next_piece(owner, 0)
            if data then return data end
            if code ~= END_OF_FILE then raise("a body has not come whole: " .. strerror(code)) end
        end
    end

    -- The whole body, as a string; or false, a code and a text, and what was read can be read
    -- again.
    local function collect(owner, max)
        local parts, few, size = {}, {}, 0
        while true do
            local data, code = next_piece(owner, 0)
            if data then
                size = size + #data
                few[#few + 1] = format("%s", data)
            end
            -- Put together some at a time: a table of tiny ones takes many times what they do.
            if not data or #data >= SMALL or #few == FEW then
                parts[#parts + 1] = concat(few)
                few = {}
            end
            if code == END_OF_FILE then return concat(parts) end
            if not data or size > max then
                if few[1] then parts[#parts + 1] = concat(few) end
                if size > 0 then returned[owner] = native.http_buffer(concat(parts)) end
                if not data then return false, code, reason(code) end
                return false, MESSAGE_TOO_LONG, format("a body of more than %.0f bytes", max)
            end
        end
    end

    function B.collector(name, check)
        return function(owner, max, ...)
            check(owner, name)
            no_more(3, name, ...)
            if type(max) == "nil" then
                max = BODY_MAX
            elseif type(max) ~= "number" or not (max >= 0) then
                bad(2, name, "number of bytes", max)
            end
            local text, code, why = collect(owner, max)
            if not text then return false, code, why end
            if name == "body" then return native.http_buffer(text) end
            if name == "text" or name == "form" then return text end
            local ok, value = pcall(native.json_decode, text)
            if ok then return value end
            -- Without the line, which is not the script's.
            return false, INVALID, match(value, "decode: (.*)$") or value
        end
    end

    return B
end

function M.check_status(status, position, name)
    local is_one = type(status) == "number" and status % 1 == 0
    if not is_one or status < STATUS_MIN or status > STATUS_MAX then
        bad(position, name, format("status from %d to %d", STATUS_MIN, STATUS_MAX), status)
    end
end

return M
