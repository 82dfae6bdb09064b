-- Options and figures of sockets. Loaded when the first of these functions is called.

local native, core, sockets = ...

local next, type = next, type
local concat, format, HUGE = table.concat, string.format, math.huge
local bad, bad_because = core.bad, native.bad_because
local streams, listeners, stocked_bytes = sockets.streams, sockets.listeners, sockets.stocked_bytes
local check_stream, check_open = sockets.check_stream, sockets.check_open

local SOCKET_CLOSED = 203

local options = {}

local RWOPT = {
    "read_head_bytes",
    "read_head_endian",
    "read_head_max",
    "write_head_bytes",
    "write_head_endian",
    "write_head_max",
}
local IS_RWOPT = {}
for i = 1, #RWOPT do
    IS_RWOPT[RWOPT[i]] = true
end

--- Changes how frames look; see docs/api/tcp.md for the fields.
---@param socket userdata
---@param changes table
function options.set_rwopt(socket, changes)
    local record = check_stream(socket, "set_rwopt")
    check_open(record, SOCKET_CLOSED, "set_rwopt")
    if type(changes) ~= "table" then bad(2, "set_rwopt", "table", changes) end
    for field in next, changes do
        if not IS_RWOPT[field] then
            local named, known = native.describe(field), concat(RWOPT, ", ")
            bad_because(2, "set_rwopt", format("no option named %s; there are %s", named, known))
        end
    end
    local why = native.set_rwopt(
        record.id,
        changes.read_head_endian,
        changes.read_head_bytes,
        changes.read_head_max,
        changes.write_head_endian,
        changes.write_head_bytes,
        changes.write_head_max
    )
    if why then bad_because(2, "set_rwopt", why) end
end

--- How frames look: a table of six fields; empty for a closed socket.
---@param socket userdata
---@return table
function options.get_rwopt(socket)
    local record = check_stream(socket, "get_rwopt")
    local result = {}
    if record.closed then return result end
    local read_endian, read_bytes, read_max, write_endian, write_bytes, write_max =
        native.get_rwopt(record.id)
    result.read_head_endian, result.read_head_bytes = read_endian, read_bytes
    result.write_head_endian, result.write_head_bytes = write_endian, write_bytes
    result.read_head_max, result.write_head_max = read_max, write_max
    return result
end

--- Switches Nagle's algorithm off or on.
---@param socket userdata
---@param on boolean
function options.set_nodelay(socket, on)
    local record = check_stream(socket, "set_nodelay")
    if not record.closed then native.set_nodelay(record.id, on and true or false) end
end

--- Lets other contexts write to the socket by its fd, or stops that.
---@param socket userdata
---@param on boolean
function options.set_wshared(socket, on)
    local record = check_stream(socket, "set_wshared")
    check_open(record, SOCKET_CLOSED, "set_wshared")
    native.set_wshared(record.id, on and true or false)
end

--- Figures of a socket: what waits, bounds. An empty table for a closed socket.
---@param socket userdata
---@return table
function options.stat(socket)
    local record = streams[socket] or listeners[socket]
    if record == nil then bad(1, "stat", "tcp socket", socket) end
    if record.closed then return {} end
    if listeners[socket] then
        local backlog, backlog_max, accepted = native.listener_stat(record.id)
        return { backlog = backlog, backlog_max = backlog_max, accepted = accepted }
    end
    local waiting, high, limit, ahead = native.socket_stat(record.id)
    return {
        write_queue_bytes = waiting,
        write_queue_high = high,
        write_queue_max = limit,
        read_buffered_bytes = ahead + stocked_bytes(record),
    }
end

--- Sets how many bytes may wait to be written before the socket fails with 212.
---@param socket userdata
---@param bytes integer
function options.set_write_limit(socket, bytes)
    local record = check_stream(socket, "set_write_limit")
    check_open(record, SOCKET_CLOSED, "set_write_limit")
    if type(bytes) ~= "number" or not (bytes >= 0) or bytes < HUGE and bytes % 1 ~= 0 then
        bad(2, "set_write_limit", "whole number of bytes from 0, or math.huge,", bytes)
    end
    native.set_write_limit(record.id, bytes)
end

return options
