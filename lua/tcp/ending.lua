-- Ends of connections other than `close`. Loaded with the first of them.

local native, core, sockets = ...

local type = type
local bad, no_more = core.bad, core.no_more
local streams, refuse, close_record = sockets.streams, sockets.refuse, sockets.close_record
local check_stream, check_open = sockets.check_stream, sockets.check_open

local SOCKET_CLOSED = 203
-- What Linux takes.
local SECONDS_MAX, COUNT_MAX = 32767, 127

local ending = {}

--- Sends what was written, then the end of the stream; reading goes on.
---@param socket userdata
---@return boolean first true the first time
function ending.shutdown(socket, ...)
    local record = check_stream(socket, "shutdown")
    check_open(record, SOCKET_CLOSED, "shutdown")
    no_more(2, "shutdown", ...)
    return native.shutdown(record.id)
end

--- Closes at once with a reset; what waits to be written is dropped.
---@param socket userdata
---@return boolean first true the first time
function ending.abort(socket)
    local record = streams[socket]
    if record == nil then record = refuse(socket, "abort") end
    if record.closed then return false end
    native.abort(record.id)
    return close_record(record, SOCKET_CLOSED)
end

-- Raises if that is no number from 1 to `max`.
local function check_number(value, max, position, expected)
    if type(value) ~= "number" or not (value >= 1 and value <= max) or value % 1 ~= 0 then
        bad(position, "set_keepalive", expected, value)
    end
end

local SECONDS = "whole number of seconds from 1 to 32767"

--- Has the system ask a silent peer whether it is there.
---@param socket userdata
---@param idle integer|false after this many seconds without a sign of it; false: not at all
---@param interval? integer then every so many seconds
---@param count? integer the connection fails after this many questions without an answer
function ending.set_keepalive(socket, idle, interval, count, ...)
    local record = check_stream(socket, "set_keepalive")
    if type(idle) ~= "boolean" or idle then
        check_number(idle, SECONDS_MAX, 2, SECONDS .. ", or false,")
    end
    if type(interval) ~= "nil" then check_number(interval, SECONDS_MAX, 3, SECONDS) end
    if type(count) ~= "nil" then check_number(count, COUNT_MAX, 4, "whole number from 1 to 127") end
    no_more(5, "set_keepalive", ...)
    if record.closed then return end
    if idle then
        native.set_keepalive(record.id, idle, interval, count)
    else
        native.set_keepalive(record.id)
    end
end

return ending
