-- The server of the soak: gates that serve framed requests and raw streams, the agents and workers
-- behind them, and a main context that kills gates at random and starts them again.
--
-- A request is a frame: its kind (one letter), its id (4 bytes), content. A reply is "=", the id,
-- content; "!", the id and a code; or "~" and the id after a timeout. A connection begins with a
-- frame "H" and the number of the gate's life; a broadcast is "b", the life and a count.

local role = ...
local FILE = debug.getinfo(1, "S").source:sub(2)

local ALPHABET = "abcdefghijklmnopqrstuvwxyz"
local FRAMES = {
    read_head_bytes = 2,
    read_head_endian = "B",
    read_head_max = 8192,
    write_head_bytes = 2,
    write_head_endian = "B",
}
-- What waits for a subscriber that does not read, before it is dropped.
local SUBSCRIBER_BYTES = 256 * 1024

local EQUALS, BANG, TILDE = ("=!~"):byte(1, 3)

-- A reply as a buffer.
local function reply_of(mark, id, content)
    local data = buffer.pack(">BI4", mark, id)
    if content then data:append(content) end
    return data
end

local function end_with(parent)
    context.monitor(parent, function() context.destroy() end)
end

local roles = {}

-- Writes the answer to the socket by its number, and tells the gate.
function roles.agent()
    end_with(context.parent())
    context.recv(0, function(_, request, from, session)
        local answer = reply_of(EQUALS, request.id, request.content)
        if request.waits then
            context.reply(from, session, (tcp.write(request.fd, answer, true)))
        else
            tcp.write(request.fd, answer)
            context.reply(from, session, true)
        end
    end)
end

-- Answers queries after the time they name.
function roles.worker()
    end_with(context.parent())
    context.recv(0, function(_, question, from, session)
        if question.ms > 0 then timer.sleep(question.ms / 1000) end
        context.reply(from, session, { id = question.id, letters = { ALPHABET, question.letters } })
    end)
end

-- Ends as it is told.
function roles.mortal(_, fate)
    if fate == "error" then
        error("as told")
    elseif fate == "memory" then
        local t = {}
        while true do
            t[#t + 1] = ALPHABET:rep(10) .. #t
        end
    elseif fate == "time" then
        while true do
        end
    elseif fate == "killed" then
        -- By the gate, which may be gone before that.
        end_with(context.parent())
        context.recv(0)
    end
end

function roles.gate(_, life, framed_port, raw_port)
    math.randomseed(life * 7919 + context.self())
    end_with(context.parent())
    local helpers, subscribers, broadcasts = {}, {}, 0

    local function keep(i, kind)
        local h = context.create({ file = FILE, name = kind, memory = 2 ^ 25 }, kind)
        helpers[i] = h
        context.monitor(h, function() keep(i, kind) end)
    end
    for i = 1, 4 do
        keep(i, "agent")
        keep(i + 4, "worker")
    end

    local serve = {}

    local function finish(conn)
        conn.pending = conn.pending - 1
        if conn.is_over and conn.pending == 0 then conn.sock:close() end
    end

    local function answer(conn, mark, id, content)
        if not conn.sock:is_closed() then conn.sock:write(reply_of(mark, id, content)) end
        finish(conn)
    end

    local function fail(conn, id, code)
        if code == 208 then return answer(conn, TILDE, id) end
        return answer(conn, BANG, id, tostring(code))
    end

    function serve.E(conn, _, frame)
        frame:set_u8(0, EQUALS)
        conn.sock:write(frame)
        finish(conn)
    end

    function serve.A(conn, id, frame)
        local content = frame:slice(5)
        local request = { fd = conn.fd, id = id, content = content, waits = id % 2 == 0 }
        local function told(ok, code)
            if ok then return finish(conn) end
            return fail(conn, id, code)
        end
        local ok, code = context.query(helpers[math.random(4)], request, 10, told)
        if not ok then fail(conn, id, code) end
    end

    function serve.Q(conn, id, frame)
        local question = { id = id, ms = frame:u16be(5), letters = ALPHABET:sub(1, id % 26) }
        local worker = helpers[4 + math.random(4)]
        local ok, found = context.query(worker, question, frame:u16be(7) / 1000)
        if not ok then return fail(conn, id, found) end
        assert(found.id == id and #found.letters[2] == id % 26)
        return answer(conn, EQUALS, id)
    end

    function serve.T(conn, id, frame)
        local seconds = frame:u16be(5) / 1000
        timer.timeout(seconds, conn, EQUALS, id, answer)
    end

    function serve.S(conn, id)
        subscribers[conn] = true
        conn.sock:set_write_limit(SUBSCRIBER_BYTES)
        answer(conn, EQUALS, id, buffer.pack(">I4", broadcasts))
    end

    function serve.B(conn, id)
        broadcasts = broadcasts + 1
        local data = buffer.pack(">BI4I4", ("b"):byte(), life, broadcasts)
        data:append(ALPHABET:rep(40))
        for subscriber in pairs(subscribers) do
            subscriber.sock:write(data)
        end
        answer(conn, EQUALS, id)
    end

    function serve.C(conn, id, frame)
        local fate = frame:text(5)
        local options = { file = FILE, name = "mortal", memory = 2 ^ 22, turn_limit = 0.1 }
        local h = context.create(options, "mortal", fate)
        context.monitor(h, function(_, reason) answer(conn, EQUALS, id, reason) end)
        if fate == "killed" then
            timer.timeout(id % 100 / 1000, function() context.destroy(h) end)
        end
    end

    function serve.K(conn, id)
        context.destroy(helpers[math.random(#helpers)], "soak")
        answer(conn, EQUALS, id)
    end

    -- Through a connection of our own.
    function serve.P(conn, id, frame)
        local ok, sock = tcp.connect("127.0.0.1", raw_port, 10)
        if not ok then return fail(conn, id, sock) end
        local content = frame:text(5)
        local back = buffer.new()
        sock:write(content)
        while #back < #content do
            local good, data = sock:read(10)
            if not good then
                sock:close()
                return fail(conn, id, data)
            end
            back:append(data)
        end
        sock:close()
        return answer(conn, EQUALS, id, back)
    end

    local function on_framed(_, sock)
        sock:set_rwopt(FRAMES)
        sock:set_nodelay(true)
        sock:set_wshared(true)
        local conn = { sock = sock, fd = tcp.fd(sock), pending = 0 }
        sock:write(reply_of(("H"):byte(), life))
        sock:read(function(ok, frame)
            if not ok then
                conn.is_over = true
                subscribers[conn] = nil
                if conn.pending == 0 then sock:close() end
                return
            end
            conn.pending = conn.pending + 1
            serve[string.char(frame:u8(0))](conn, frame:u32be(1), frame)
        end)
    end

    local function on_raw(_, sock)
        local ok, data
        repeat
            ok, data = sock:read()
            if ok then ok = sock:write(data, true) end
        until not ok
        sock:close()
    end

    -- The port may be another's for a moment.
    local function listen(port, callback)
        while true do
            local ok, listener = tcp.listen("127.0.0.1", port)
            if ok then
                listener:accept(callback)
                return tcp.local_port(listener)
            end
            timer.sleep(0.02)
        end
    end
    raw_port = listen(raw_port, on_raw)
    framed_port = listen(framed_port, on_framed)
    context.send(context.parent(), { framed_port, raw_port })
end

-- Keeps gates alive, each for some seconds; tells whoever asks how many mortals
-- there are.
function roles.main(_, gates, seconds)
    gates, seconds = tonumber(gates), tonumber(seconds)
    context.on_signal("USR1", function()
        local mortals = 0
        for _, one in ipairs(context.list()) do
            if one.name == "mortal" then mortals = mortals + 1 end
        end
        print(mortals)
    end)
    for number = 1, gates do
        context.run(function()
            local framed, raw, life = 0, 0, 0
            math.randomseed(number)
            while true do
                life = life + 1
                local gate =
                    context.create({ file = FILE, name = "gate" }, "gate", life, framed, raw)
                local ok, ports = context.recv(gate, 60)
                assert(ok, "a gate does not start")
                framed, raw = ports[1], ports[2]
                if life == 1 then
                    print(framed)
                    print(raw)
                    io.stdout:flush()
                end
                timer.sleep(seconds * (0.2 + 1.6 * math.random()))
                context.destroy(gate, "soak")
                context.wait(gate)
            end
        end)
    end
end

roles[role](...)
