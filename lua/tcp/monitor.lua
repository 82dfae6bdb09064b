-- tcp.monitor: who wants to know that a connection is gone. Loaded with the first of them.

local native, core, sockets = ...

local select, type = select, type
local bad, call, defer, hold = core.bad, core.call, core.defer, core.hold
local by_id, release_anchor = sockets.by_id, sockets.release_anchor
local check_stream, check_open = sockets.check_stream, sockets.check_open

local SOCKET_CLOSED = 203

-- Calls the callback if the connection is gone; otherwise the context is woken once it is.
local function tell(record)
    local callback, socket = record.monitor, record.anchor
    if not callback then return end
    local code = native.watch_end(record.id)
    if not code then return end
    record.monitor = false
    hold(-1)
    release_anchor(record)
    return call(callback, code, socket)
end

local GONE = 16

core.handlers[GONE] = function(id)
    local record = by_id[id]
    if record then return tell(record) end
end

return function(socket, ...)
    local record = check_stream(socket, "monitor")
    -- A websocket closes itself when its peer has ended it.
    local ended = record.closed and record.pieces and record.pieces.code
    if not ended then check_open(record, SOCKET_CLOSED, "monitor") end
    local callback = ...
    core.no_more(3, "monitor", select(2, ...))
    if select("#", ...) == 0 or type(callback) ~= "nil" and type(callback) ~= "function" then
        bad(2, "monitor", "function or nil", callback)
    end
    if ended then
        if callback then defer(call, callback, ended, socket) end
    elseif callback then
        if not record.monitor then hold(1) end
        record.monitor, record.anchor = callback, socket
        defer(tell, record)
    elseif record.monitor then
        record.monitor = false
        hold(-1)
        native.forget_end(record.id)
        release_anchor(record)
    end
end
