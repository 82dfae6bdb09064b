-- Pieces of what comes that are no frames: this many bytes, or all up to a delimiter. Loaded with
-- the first of them.

local native, core, sockets = ...

local select, type = select, type
local format = string.format
local bad, check_may_wait = core.bad, core.check_may_wait
local timeout_of, register, read_piece = core.timeout_of, core.register, native.read_piece
local check_stream, check_open = sockets.check_stream, sockets.check_open
local next_waiter, next_frame, is_busy = sockets.next_waiter, sockets.next_frame, sockets.is_busy
local restore_stock, wait_in_line = sockets.restore_stock, sockets.wait_in_line

local SOCKET_CLOSED, TIMEOUT = 203, 208
local COUNT_MAX, DELIMITER_MAX = 0x7fffffff, 1024

-- The number of the piece that was asked for last, of any socket.
local last_number = 0

-- The piece that somebody wants: as next_frame.
local function take(record, piece)
    if is_busy(record) then return end
    record.busy = true
    restore_stock(record)
    local data, code = read_piece(record.id, piece.number, piece.what, piece.max)
    record.busy = false
    return data, code
end

-- What the waiter with this token is given next: a piece, or else a frame.
function sockets.next_of(record, token)
    local piece = token and record.pieces[token]
    if piece then return take(record, piece) end
    return next_frame(record)
end

local function read(socket, record, what, max, timeout)
    if timeout < 0 then return false, TIMEOUT end
    last_number = last_number + 1
    local piece = { number = last_number, what = what, max = max }
    if record.waiter or next_waiter(record) then
        check_may_wait()
    else
        local data, code = take(record, piece)
        if data then return true, data end
        if data == false then return false, code end
        check_may_wait()
    end
    local token = register()
    local pieces = record.pieces or {}
    record.pieces = pieces
    pieces[token] = piece
    local ok, value = wait_in_line(socket, record, token, timeout)
    pieces[token] = nil
    return ok, value
end

-- A timeout, if one is given at `position`, and nothing behind it.
local function timeout_at(position, name, ...)
    local n = select("#", ...)
    if n == 0 then return 0 end
    if n > 1 then bad(position + 1, name, nil, (select(2, ...))) end
    return timeout_of((...), position, name)
end

-- Raises if that is no number of bytes.
local function check_count(count, position, name)
    if type(count) ~= "number" or count % 1 ~= 0 or count < 0 or count > COUNT_MAX then
        bad(position, name, "whole number of bytes from 0 to 2147483647", count)
    end
end

local pieces = {}

--- Reads this many bytes, whatever the frames are.
---@param socket userdata
---@param count integer
---@param timeout? number seconds
---@return boolean ok, userdata|integer buffer or code
function pieces.read_bytes(socket, count, ...)
    local record = check_stream(socket, "read_bytes")
    check_open(record, SOCKET_CLOSED, "read_bytes")
    check_count(count, 2, "read_bytes")
    return read(socket, record, count, 0, timeout_at(3, "read_bytes", ...))
end

--- Reads all up to a delimiter, whatever the frames are; the delimiter itself is dropped.
---@param socket userdata
---@param delimiter string
---@param max? integer the most bytes before it
---@param timeout? number seconds
---@return boolean ok, userdata|integer buffer or code
function pieces.read_until(socket, delimiter, max, ...)
    local record = check_stream(socket, "read_until")
    check_open(record, SOCKET_CLOSED, "read_until")
    if type(delimiter) ~= "string" or #delimiter == 0 or #delimiter > DELIMITER_MAX then
        bad(2, "read_until", format("string of 1 to %d bytes", DELIMITER_MAX), delimiter)
    end
    if type(max) ~= "nil" then check_count(max, 3, "read_until") end
    return read(socket, record, delimiter, max or COUNT_MAX, timeout_at(4, "read_until", ...))
end

return pieces
