-- Options and figures of sockets. Loaded when the first of these functions is called.

local native, core, sockets = ...

local next = next
local type, unpack = type, unpack
local format, HUGE = string.format, math.huge
local bad, bad_because, no_more = core.bad, native.bad_because, core.no_more
local streams, listeners, stocked_bytes = sockets.streams, sockets.listeners, sockets.stocked_bytes
local check_stream, check_open = sockets.check_stream, sockets.check_open
local restore_stock = sockets.restore_stock
local check_options = native.load("core/options")(native).check

local SOCKET_CLOSED = 203

local options = {}

-- The fields, in the order in which Rust takes and gives them.
local RWOPT = {
    "read_head_endian",
    "read_head_bytes",
    "read_head_max",
    "read_head_adjust",
    "read_head_offset",
    "read_delimiter",
    "write_head_endian",
    "write_head_bytes",
    "write_head_max",
    "write_head_adjust",
    "write_head_offset",
}
local IS_RWOPT = {}
for i = 1, #RWOPT do
    IS_RWOPT[RWOPT[i]] = true
end

-- Widths that by themselves `set_rwopt` has always refused, and goes on to: who means one says more
-- about the frames with it.
local IS_UNUSUAL = { [3] = true, [5] = true, [6] = true, [7] = true, [8] = true }

local function check_width(changes)
    local bytes = changes.read_head_bytes
    if IS_UNUSUAL[bytes] and not next(changes, (next(changes))) then
        local why = "read_head_bytes: %d and nothing else is not 0, 1, 2 or 4; other widths need "
            .. "another field beside them, such as read_head_endian"
        bad_because(2, "set_rwopt", format(why, bytes))
    end
end

-- set_rwopt, or reframe.
local function change(name, socket, changes, ...)
    local record = check_stream(socket, name)
    check_open(record, SOCKET_CLOSED, name)
    check_options(changes, IS_RWOPT, 2, name)
    no_more(3, name, ...)
    local values = {}
    for i = 1, #RWOPT do
        values[i] = changes[RWOPT[i]]
    end
    local is_reframed = name == "reframe"
    if not is_reframed then check_width(changes) end
    -- By the old heads.
    if is_reframed then restore_stock(record) end
    local why = native.set_rwopt(record.id, is_reframed, unpack(values, 1, #RWOPT))
    if why then bad_because(2, name, why) end
end

--- Sets how frames look, before there are any; see docs/api/tcp.md for the fields.
---@param socket userdata
---@param changes table
function options.set_rwopt(socket, ...) return change("set_rwopt", socket, ...) end

--- Changes how frames look, from the next byte on that was not delivered yet.
---@param socket userdata
---@param changes table
function options.reframe(socket, ...) return change("reframe", socket, ...) end

--- How frames look: a table of the fields; empty for a closed socket.
---@param socket userdata
---@return table
function options.get_rwopt(socket)
    local record = check_stream(socket, "get_rwopt")
    local result = {}
    if record.closed then return result end
    local values = { native.get_rwopt(record.id) }
    for i = 1, #RWOPT do
        result[RWOPT[i]] = values[i]
    end
    return result
end

--- Switches Nagle's algorithm off or on.
---@param socket userdata
---@param on boolean
function options.set_nodelay(socket, ...)
    local record = check_stream(socket, "set_nodelay")
    local on = core.flag("set_nodelay", ...)
    if not record.closed then native.set_nodelay(record.id, on) end
end

--- Lets other contexts write to the socket by its fd, or stops that.
---@param socket userdata
---@param on boolean
function options.set_wshared(socket, ...)
    local record = check_stream(socket, "set_wshared")
    check_open(record, SOCKET_CLOSED, "set_wshared")
    native.set_wshared(record.id, core.flag("set_wshared", ...))
end

--- Figures of a socket: what waits, bounds. An empty table for a closed socket.
---@param socket userdata
---@return table
function options.stat(socket)
    local record = streams[socket] or listeners[socket] or sockets.find_other(socket, "stat")
    if record == nil then bad(1, "stat", "tcp socket", socket) end
    if record.closed then return {} end
    if listeners[socket] then
        local backlog, backlog_max, accepted = native.listener_stat(record.id)
        return { backlog = backlog, backlog_max = backlog_max, accepted = accepted }
    end
    local waiting, high, limit, ahead, truncated = native.socket_stat(record.id)
    return {
        write_queue_bytes = waiting,
        write_queue_high = high,
        write_queue_max = limit,
        read_buffered_bytes = ahead + stocked_bytes(record),
        truncated = truncated,
    }
end

--- Sets how many bytes may wait to be written before the socket fails with 212.
---@param socket userdata
---@param bytes integer
function options.set_write_limit(socket, bytes, ...)
    local record = check_stream(socket, "set_write_limit")
    check_open(record, SOCKET_CLOSED, "set_write_limit")
    if type(bytes) ~= "number" or not (bytes >= 0) or bytes < HUGE and bytes % 1 ~= 0 then
        bad(2, "set_write_limit", "whole number of bytes from 0, or math.huge,", bytes)
    end
    no_more(3, "set_write_limit", ...)
    native.set_write_limit(record.id, bytes)
end

return options
