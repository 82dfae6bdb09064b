-- Sockets as the Lua side keeps them: who waits on which, and who is called back.

local native, core = ...

local rawget, select, setmetatable, tonumber, type = rawget, select, setmetatable, tonumber, type
local floor, format = math.floor, string.format
local native_read, strerror = native.read, native.strerror
local call_to_wait, check_may_wait = core.call_to_wait, core.check_may_wait
local bad, bad_because, raise = core.bad, native.bad_because, core.raise
local call, complete, defer, hold = core.call, core.complete, core.defer, core.hold
local register, set_timeout = core.register, core.set_timeout
local suspend, suspend_on, resume_waiter = core.suspend, core.suspend_on, core.resume_waiter
local next_waiter, drop_waiter = core.next_waiter, core.drop_waiter

local TIMEOUT = 208
local SOCKET_CLOSED, LISTENER_CLOSED = 203, 204
local TOO_MANY_FILES, FILE_TABLE_FULL = 20, 24
local PORT_MAX = 65535

-- Records of sockets: id, closed, callback, whether it was told the end (`eof_sent`), frames that
-- have come and nobody has read (in `queue`, behind `head` up to `tail`), the root that waits
-- without a token and before the others (`waiter`), and the tokens of who waits from `first` to
-- `last`; `pieces` has what those of them want who do not wait for frames. `serve` is what an event
-- of a listen socket calls, `monitor` the callback of tcp.monitor. `busy` while the frames are seen
-- to: what a finaliser, which may run at any time, read meanwhile would be out of order, or lost.
-- Nothing is there for it then, so that it raises.
-- Whether there is more to read is known in Rust only (src/net/connection/mod.rs).
-- A record holds its socket in `anchor` while somebody waits, so that the collector spares it.
-- All fields are there from the beginning: compiled code knows where they are, and records that
-- grew in different orders would each need code of their own.
local streams = setmetatable({}, { __mode = "k" })
local listeners = setmetatable({}, { __mode = "k" })
local by_id = setmetatable({}, { __mode = "v" })
local paths = setmetatable({}, { __mode = "k" }) -- record → the path of a unix socket

-- What a script wants that calls a function for the other kind of socket.
local HINTS = {
    accept = "use 'read'",
    read = "use 'accept'",
    read_into = "use 'accept'",
    serve = "tcp.listen returns listening ones",
}

-- The record of a socket of another kind (a websocket) for this function, which raises if it takes
-- none; nothing for other values.
local function find_other(value, name)
    local find_record = core.other_socket
    if find_record and type(value) ~= "nil" then return find_record(value, name) end
end

-- What functions expect that do not take all tcp sockets.
local EXPECTED = { accept = "tcp listen socket", serve = "address or tcp listen socket" }

-- Raises: `value` is no connection, or, for 'accept', no listen socket. Returns the record of one
-- that is of another kind.
local function refuse(value, name)
    local other = find_other(value, name)
    if other then return other end
    local hint = HINTS[name]
    if listeners[value] and name ~= "accept" then
        local text = "connected socket expected, got a listening one: %s"
        bad_because(1, name, format(text, hint or "'accept' returns connected ones"))
    end
    if streams[value] then
        local text = "listening socket expected, got a connected one: %s"
        bad_because(1, name, format(text, hint or "tcp." .. name .. " takes both"))
    end
    local records = core.udp_records
    if records and records[value] and rawget(core.udp, name) then
        bad_because(1, name, format("tcp socket expected, got udp socket: use udp.%s", name))
    end
    bad(1, name, EXPECTED[name] or "tcp socket", value)
end

local function check_stream(value, name)
    local record = streams[value]
    if record == nil then return refuse(value, name) end
    return record
end

local function check_listener(value, name)
    local record = listeners[value]
    if record == nil then refuse(value, name) end
    return record
end

-- Raises if a socket is closed.
local function check_open(record, code, name)
    if record.closed then
        raise(format("%s: '%s' needs an open one (tcp.is_closed tells)", strerror(code), name))
    end
end

-- The number of a port, which raises if it is none.
local function check_port(port, name, position)
    local number = tonumber(port)
    if not number or number ~= floor(number) or number < 0 or number > PORT_MAX then
        bad(position, name, format("port from 0 to %d", PORT_MAX), port)
    end
    return number
end

-- Waits for a name to be looked up: its addresses of a family (0: of any), or a code.
local function resolve(family, name, port)
    local token = register()
    native.resolve(token, family, name, port)
    return suspend()
end

local function new_socket(registry, id, path)
    local socket = native.socket_object(id, registry == listeners and 1 or 0)
    local record = {
        id = id,
        closed = false,
        first = 1,
        last = 0,
        queue = {},
        tail = 0,
        head = 0,
        busy = false,
        waiter = false,
        pieces = false,
        serve = false,
        callback = false,
        eof_sent = false,
        monitor = false,
        anchor = false,
    }
    registry[socket] = record
    by_id[id] = record
    if path then paths[record] = path end
    return socket
end

local function new_stream(id, path) return new_socket(streams, id, path) end

local function new_listener(id, path) return new_socket(listeners, id, path) end

-- The ends of an open connection, or of a listener, as text.
local function ends_of(record, is_listener)
    if paths[record] then return paths[record] end
    local here = native.address(record.id, 5) or "?"
    return is_listener and here or format("%s -> %s", here, native.address(record.id, 6) or "?")
end

-- Where the next event puts frames beyond its first, with the connection's id at 0 until it has
-- them. Who gets some gives his own, empty, for it.
core.stock = {}

-- Whether the frames of a connection are being seen to.
local function is_busy(record) return record.busy or core.stock[0] == record.id end

-- The next frame: a buffer; false and a code; nothing if there is none yet: then an event brings
-- it. In the running root it is nil and a reason if that cannot wait.
local function next_frame(record, in_root)
    local head, queue = record.head + 1, record.queue
    if head <= record.tail and not record.busy then
        -- No finaliser comes between the next three lines: nothing collects, or leaves compiled
        -- code, there.
        local data = queue[head]
        if data then
            record.head = head
            queue[head] = false
            return data
        end
    end
    if is_busy(record) then
        if in_root then check_may_wait() end
        return
    end
    record.busy = true
    if record.head < record.tail then
        -- A finaliser has come before.
        record.busy = false
        return next_frame(record, in_root)
    end
    local data, more
    if in_root then
        data, more = call_to_wait(native_read, record.id, queue)
    else
        data, more = native_read(nil, nil, record.id, queue)
    end
    if data then
        record.head, record.tail = 0, more
    end
    record.busy = false
    return data, more
end

-- Takes the frames that an event has brought beside its first.
local function take_stock(record, count)
    record.busy = true
    record.queue, core.stock = core.stock, record.queue
    record.head, record.tail = 0, count
    record.queue[0] = false
    record.busy = false
end

-- Takes all frames that an event has brought, behind those that a finaliser has left.
local function add_stock(record, data, count)
    record.busy = true
    local queue, tail, stock = record.queue, record.tail + 1, core.stock
    queue[tail] = data
    for i = 1, count do
        queue[tail + i] = stock[i]
    end
    record.tail, core.stock = tail + count, {}
    record.busy = false
end

-- Puts a frame back that was taken and found no use: the next read gets it.
local function put_back(record, data)
    if record.closed then return end
    record.busy = true
    local head, queue = record.head, record.queue
    if head == 0 then
        for i = record.tail, 1, -1 do
            queue[i + 1] = queue[i]
        end
        record.tail = record.tail + 1
        head = 1
    end
    queue[head], record.head = data, head - 1
    record.busy = false
end

-- Gives frames that were not read back, for who wants their bytes in another form.
local function restore_stock(record)
    local was_busy = record.busy
    record.busy = true
    if record.head < record.tail then
        native.restore(record.id, record.queue, record.head + 1, record.tail)
        record.queue, record.head, record.tail = {}, 0, 0
    end
    record.busy = was_busy
end

-- Bytes of frames that were not read.
local function stocked_bytes(record)
    local sum = 0
    for i = record.head + 1, record.tail do
        sum = sum + #record.queue[i]
    end
    return sum
end

-- Waiting on a socket -----------------------------------------------------------------------------

local function take_waiter(record)
    record[record.first] = nil
    record.first = record.first + 1
end

local function release_anchor(record)
    if record.callback or record.waiter or record.monitor then return end
    if not next_waiter(record) then record.anchor = false end
end

-- What a finaliser has left after the running root found nothing is for who waits: no event tells.
local function serve_stock(record)
    if record.head < record.tail then defer(record.serve or core.serve_stream, record) end
end

-- Blocks the running root on a socket, behind who waits already, under a token.
local function wait_in_line(socket, record, token, timeout)
    record.last = record.last + 1
    record[record.last] = token
    record.anchor = socket
    serve_stock(record)
    set_timeout(token, timeout)
    local ok, value = suspend()
    -- If its time was up, the socket must not be held on its behalf any more.
    if not ok and value == TIMEOUT then
        drop_waiter(record, token)
        release_anchor(record)
    end
    return ok, value
end

-- The same, before all others: no token is needed.
local function wait_first(socket, record)
    record.anchor = socket
    record.busy = true -- until it waits
    if record.head < record.tail then serve_stock(record) end
    return suspend_on(record)
end

-- Blocks the running root on a socket. Most wait alone, and without a timeout.
local function wait_on(socket, record, timeout)
    if timeout == 0 and not record.waiter and record.first > record.last then
        return wait_first(socket, record)
    end
    return wait_in_line(socket, record, register(), timeout)
end

-- Every wait is another path through these: compiled, they are many traces that serve little.
core.interpret(wait_in_line)
core.interpret(wait_first)
core.interpret(wait_on)

local function set_callback(socket, record, callback, serve)
    if not record.callback then hold(1) end
    record.callback = callback
    record.anchor = socket
    record.eof_sent = false
    defer(serve, record)
end

local function fail_waiters(record, code)
    if record.waiter then resume_waiter(record, false, code) end
    local token = next_waiter(record)
    while token do
        take_waiter(record)
        complete(token, false, code)
        token = next_waiter(record)
    end
    record.anchor = false
end

local function close_record(record, code)
    if record.closed then return false end
    record.closed = true
    record.queue, record.tail, record.head = nil, 0, 0
    by_id[record.id] = nil
    native.close(record.id)
    if record.on_closed then record.on_closed(record) end
    if record.callback then
        record.callback = false
        hold(-1)
    end
    if record.monitor then
        record.monitor = false
        hold(-1)
    end
    if record.waiter or record.first <= record.last then
        defer(fail_waiters, record, code)
    else
        record.anchor = false
    end
    return true
end

local shortage -- what tcp/shortage.lua returns, once it is needed

-- Whether a call has failed because descriptors ran out.
local function is_shortage(code) return code == TOO_MANY_FILES or code == FILE_TABLE_FULL end

local function get_shortage()
    shortage = shortage or native.load("tcp/shortage")(native, core)
    return shortage
end

local COLLECT = 17

core.handlers[COLLECT] = function() return get_shortage().collect() end

-- A root coroutine has failed.
core.guards(true)
function core.on_failure(guards, co, message)
    get_shortage().collect_soon()
    local socket = guards[co]
    if not socket then return end
    guards[co] = nil
    if type(socket) == "function" then return socket(message) end
    if core.fail_request and core.fail_request(socket) then return end
    local records = core.udp_records
    local record = streams[socket] or records and records[socket] or find_other(socket, "fail")
    if record then
        -- The script has not closed it: whoever watches it must learn of that.
        local watcher = record.monitor
        close_record(record, SOCKET_CLOSED)
        if watcher then defer(call, watcher, SOCKET_CLOSED, socket) end
    else
        close_record(listeners[socket], LISTENER_CLOSED)
    end
end

-- What is to be on or off: nothing else, or an "off" would be on. Raises if there is more.
function core.flag(name, ...)
    local on = ...
    if type(on) ~= "boolean" then bad(2, name, "true or false", ...) end
    core.no_more(3, name, select(2, ...))
    return on
end

return {
    paths = paths,
    streams = streams,
    listeners = listeners,
    by_id = by_id,
    refuse = refuse,
    find_other = find_other,
    check_stream = check_stream,
    check_listener = check_listener,
    check_open = check_open,
    check_port = check_port,
    resolve = resolve,
    new_stream = new_stream,
    new_listener = new_listener,
    next_frame = next_frame,
    take_stock = take_stock,
    add_stock = add_stock,
    is_busy = is_busy,
    stocked_bytes = stocked_bytes,
    put_back = put_back,
    restore_stock = restore_stock,
    next_waiter = next_waiter,
    take_waiter = take_waiter,
    release_anchor = release_anchor,
    wait_first = wait_first,
    wait_on = wait_on,
    wait_in_line = wait_in_line,
    set_callback = set_callback,
    close_record = close_record,
    ends_of = ends_of,
    get_shortage = get_shortage,
    is_shortage = is_shortage,
}
