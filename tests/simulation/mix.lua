-- A program of many contexts that checks itself: echo over TCP and unix sockets, writes from other
-- contexts, queries, floods of messages, timers, and contexts that are killed. What it does follows
-- from the seed of its simulation; what must hold, whatever goes wrong:
--   * each query gets one outcome, and the right one;
--   * bytes come back in order and once, or the connection reports an error;
--   * messages of one sender arrive in order, as many as were taken;
--   * each end of a context is noticed once;
--   * each callback of a write is called once; timers are never early, and ordered.
-- Arguments of the main context: "calm" if nothing goes wrong (then nothing may fail), "kill" if
-- contexts may be killed.

local role, script, main, calm, kill = ...
if arg then
    role, script, main, calm, kill = "main", arg[0], context.self(), false, false
    for _, word in ipairs({ ... }) do
        calm, kill = calm or word == "calm", kill or word == "kill"
    end
end

local random = math.random
local OPTIONS = {
    read_head_bytes = 2,
    read_head_endian = "B",
    write_head_bytes = 2,
    write_head_endian = "B",
}
local PATH = "/simulated/echo.sock"
local END_OF_FILE, REFUSED, RESET, TOO_MANY, PIPE = 1, 12, 13, 20, 36
local SOCKET_CLOSED, LISTENER_CLOSED = 203, 204
local NO_CONTEXT, BAD_TYPE, NO_REPLY, TIMEOUT, FULL = 205, 206, 207, 208, 209
-- What an operation on a connection may meet.
local BROKEN = { [END_OF_FILE] = true, [RESET] = true, [PIPE] = true }
-- What an attempt to connect may meet.
local UNREACHED = { [REFUSED] = true, [RESET] = true, [TOO_MANY] = true, [TIMEOUT] = true }
UNREACHED[2], UNREACHED[4], UNREACHED[34], UNREACHED[40] = true, true, true, true

local function must(condition, format, ...)
    if condition then return end
    error(role .. ": " .. format:format(...), 2)
end

-- A callback whose errors fail the whole run.
local function guard(f)
    return function(...)
        local ok, message = xpcall(f, debug.traceback, ...)
        if not ok then
            context.send(main, { failure = message })
            error(message, 0)
        end
    end
end

-- Waits until a condition holds, which must not take for ever.
local function wait_until(what, condition)
    for _ = 1, 1000 do
        if condition() then return end
        timer.sleep(1)
    end
    error(role .. ": in vain: " .. what)
end

local function new(name, ...) return context.create(script, name, script, main, calm, kill, ...) end

-- Calls f until it succeeds: there may be no descriptor just now.
local function insist(f, ...)
    for _ = 1, 100 do
        local ok, value = f(...)
        if ok then return value end
        must(not calm and value == TOO_MANY, "no listener: %s", value)
        timer.sleep(0.01)
    end
    error("no listener for a second")
end

local roles = {}

-- Echo ------------------------------------------------------------------------------------------

local function body(id, sequence, length)
    return ("%d:%d:"):format(id, sequence) .. string.char(97 + sequence % 26):rep(length)
end

-- Writes in one of the ways there are; true if the connection may go on.
local function write(socket, data, written)
    local way = random(4)
    if way == 1 then
        local ok, code = tcp.write(socket, data, true)
        must(ok and code == 0 or BROKEN[code] or code == SOCKET_CLOSED, "write: %s", code)
        return ok
    elseif way == 2 then
        written.asked = written.asked + 1
        tcp.write(
            socket,
            data,
            guard(function(ok, code)
                written.told = written.told + 1
                must(ok and code == 0 or BROKEN[code] or code == SOCKET_CLOSED, "write: %s", code)
            end)
        )
    elseif way == 3 then
        tcp.write(socket, buffer.new(data))
    else
        tcp.write(socket, data)
    end
    return true
end

function roles.server(pushers)
    local written = { asked = 0, told = 0 }
    local open = 0
    local serve = guard(function(_, socket)
        open = open + 1
        socket:set_rwopt(OPTIONS)
        while true do
            local ok, data = socket:read()
            if not ok then
                must(BROKEN[data], "read: %s", data)
                break
            end
            local text = data:tostring()
            if text == "push" then
                tcp.set_wshared(socket, true)
                for _, pusher in ipairs(pushers) do
                    context.send(pusher, { push = tcp.fd(socket) })
                end
            elseif not write(socket, data, written) then
                break
            end
        end
        socket:close()
        open = open - 1
    end)
    local listener = insist(tcp.listen, "127.0.0.1", 0)
    local other = insist(tcp.listens, PATH)
    must(not tcp.listen("127.0.0.1", tcp.local_port(listener)), "a port is taken twice")
    listener:accept(serve)
    context.run(guard(function()
        while true do
            local ok, socket = other:accept()
            if not ok then
                must(socket == LISTENER_CLOSED, "accept: %s", socket)
                return
            end
            context.run(serve, true, socket)
        end
    end))
    context.recv(
        main,
        guard(function(_, what, from, session)
            if what == "port" then
                context.reply(from, session, tcp.local_port(listener))
                return
            end
            listener:close()
            other:close()
            context.recv(main, nil)
            wait_until("connections end", function() return open == 0 end)
            wait_until("writes are told", function() return written.told >= written.asked end)
            must(written.asked == written.told, "%d of %d writes told", written.told, written.asked)
        end)
    )
end

-- A connection; nil if there is none to be had.
local function connect(port)
    for _ = 1, 20 do
        local ok, socket
        local way = random(4)
        if way == 1 then
            ok, socket = tcp.connects(PATH)
        elseif way == 2 then
            ok, socket = tcp.connect("localhost", port, 3)
        else
            ok, socket = tcp.connect("127.0.0.1", port)
        end
        if ok then
            socket:set_rwopt(OPTIONS)
            return socket
        end
        must(UNREACHED[socket], "connect: %s", socket)
        must(not calm, "connect fails: %s", socket)
        timer.sleep(random() * 0.1)
    end
end

local function echo(socket, id, tally)
    local count = random(20)
    local lengths, early = {}, random(8) == 1 and random(count)
    for i = 1, count do
        lengths[i] = random(10) == 1 and random(30000) or random(0, 300)
    end
    local written = { asked = 0, told = 0 }
    context.run(guard(function()
        for i = 1, count do
            if tcp.is_closed(socket) then return end
            if not write(socket, body(id, i, lengths[i]), written) then return end
            if random(5) == 1 then timer.sleep(random() * 0.01) end
        end
    end))
    for i = 1, count do
        if i == early then break end
        local ok, data
        repeat
            ok, data = socket:read(random(3) == 1 and random() or 0)
        until ok or data ~= TIMEOUT
        if not ok then
            must(not calm and BROKEN[data], "frame %d of %d: %s", i, count, data)
            break
        end
        must(data:tostring() == body(id, i, lengths[i]), "frame %d is %.60s", i, data:tostring())
        tally.frames = tally.frames + 1
    end
    socket:close()
    wait_until("writes are told", function() return written.told >= written.asked end)
    must(written.asked == written.told, "%d of %d writes told", written.told, written.asked)
end

-- Frames that other contexts write.
local function listen_to_pushers(socket, count, tally)
    tcp.write(socket, "push")
    local last, done = {}, 0
    while done < count do
        local ok, data = socket:read()
        if not ok then
            must(not calm and BROKEN[data], "pushed: %s", data)
            break
        end
        local who, number, what = data:tostring():match("^p(%d+):(%d+):(%l+)$")
        must(who, "pushed: %.60s", data:tostring())
        number = tonumber(number)
        must(number == (last[who] or 0) + 1, "pusher %s: %d after %s", who, number, last[who])
        last[who] = number
        tally.frames = tally.frames + 1
        if what == "done" then done = done + 1 end
    end
    socket:close()
end

function roles.client(port, pushers)
    local tally = { frames = 0 }
    local id = context.self()
    for _ = 1, random(3) do
        local socket = connect(port)
        if socket then
            if random(3) == 1 then
                listen_to_pushers(socket, pushers, tally)
            else
                echo(socket, id, tally)
            end
        end
    end
    context.send(main, tally)
end

function roles.pusher(number)
    context.recv(
        0,
        guard(function(_, message)
            if message == "stop" then
                context.recv(0, nil)
                return
            end
            local count = random(30)
            for i = 1, count do
                local what = i == count and "done" or ("x"):rep(random(200))
                local text = ("p%d:%d:%s"):format(number, i, what)
                if random(3) == 1 then
                    local ok, code = tcp.write(message.push, text, true)
                    if not ok then
                        must(not calm and (BROKEN[code] or code == SOCKET_CLOSED), "push: %s", code)
                        return
                    end
                else
                    local ok, code = tcp.write(message.push, text)
                    must(
                        ok ~= false or not calm and (BROKEN[code] or code == SOCKET_CLOSED),
                        "push: %s",
                        code
                    )
                end
            end
        end)
    )
end

-- Queries ---------------------------------------------------------------------------------------

function roles.agent()
    local peers = {}
    context.recv(
        0,
        guard(function(_, what, from, session)
            if what == "stop" then
                context.recv(0, nil)
            elseif what.peers then
                peers = what.peers
            elseif what.op == "now" then
                context.reply(from, session, 2 * what.n)
            elseif what.op == "later" then
                timer.timeout(random() * 0.2, from, session, 2 * what.n, context.reply)
            elseif what.op == "twice" then
                context.reply(from, session, 2 * what.n)
                context.reply(from, session, "again")
            elseif what.op == "bad" then
                must(not pcall(context.reply, from, session, print), "a function travels")
            elseif what.op == "forward" then
                local ok, value =
                    context.query(peers[random(#peers)], { op = "later", n = what.n }, 5)
                context.reply(from, session, ok and value or "lost")
            elseif what.op == "die" then
                context.destroy()
            end
        end)
    )
end

local OPERATIONS = { "now", "later", "twice", "bad", "forward", "never" }

function roles.asker(agents)
    local outcomes, count, asked = {}, random(5, 30), 0
    local function check(n, op, timeout, ok, value)
        outcomes[n] = (outcomes[n] or 0) + 1
        must(outcomes[n] == 1, "query %d has %d outcomes", n, outcomes[n])
        if ok then
            local lost = op == "forward" and value == "lost" and kill
            must(op ~= "bad" and op ~= "never", "query %d (%s) gets %s", n, op, value)
            must(value == 2 * n or lost, "query %d (%s) gets %s", n, op, value)
        elseif value == BAD_TYPE then
            must(op == "bad", "query %d (%s): 206", n, op)
        elseif value == TIMEOUT then
            must(timeout > 0, "query %d (%s): 208 without a timeout", n, op)
        else
            must(
                kill and (value == NO_CONTEXT or value == NO_REPLY),
                "query %d (%s): %s",
                n,
                op,
                value
            )
        end
    end
    for n = 1, count do
        local op = OPERATIONS[random(#OPERATIONS)]
        if kill and random(20) == 1 then op = "die" end
        local timeout = (op == "never" or random(3) == 1) and random() * 0.3 or 0
        local agent = agents[random(#agents)]
        asked = asked + 1
        if random(2) == 1 then
            local told = guard(function(ok, value) check(n, op, timeout, ok, value) end)
            local ok, code = context.query(agent, { op = op, n = n }, timeout, told)
            if not ok then check(n, op, timeout, ok, code) end
        else
            check(n, op, timeout, context.query(agent, { op = op, n = n }, timeout))
        end
        if random(4) == 1 then timer.sleep(random() * 0.05) end
    end
    wait_until("outcomes", function() return #outcomes == asked end)
    context.send(main, { queries = asked })
end

-- Messages --------------------------------------------------------------------------------------

function roles.flooder(number, collector)
    local taken = 0
    for i = 1, random(10, 200) do
        local ok, code
        repeat
            ok, code = context.send(collector, { number, taken + 1, i })
            must(ok or code == FULL, "send: %s", code)
            if not ok then timer.sleep(random() * 0.01) end
        until ok or random(3) == 1
        if ok then taken = taken + 1 end
    end
    context.send(main, { number = number, taken = taken })
end

function roles.collector()
    local counts = {}
    while true do
        local _, message, from, session = context.recv(0)
        if message == "counts" then
            context.reply(from, session, counts)
            return
        end
        local number, sequence = message[1], message[2]
        must(
            sequence == (counts[number] or 0) + 1,
            "flooder %d: %d after %s",
            number,
            sequence,
            counts[number]
        )
        counts[number] = sequence
        if random(10) == 1 then timer.sleep(random() * 0.02) end
    end
end

-- All of it -------------------------------------------------------------------------------------

local function check_timers()
    local fired, order, beats = 0, {}, 0
    for i = 1, 10 do
        local start, delay = os.clock(), random(0, 5) / 10
        timer.timeout(
            delay,
            guard(function()
                must(os.clock() - start >= delay, "a timer is early")
                fired = fired + 1
            end)
        )
        timer.timeout(1, function() order[#order + 1] = i end)
        timer.close(timer.timeout(delay, guard(function() error("a closed timer fires") end)))
    end
    local beat
    beat = timer.loop(0.1, 0.1, function()
        beats = beats + 1
        if beats == 5 then timer.close(beat) end
    end)
    timer.sleep(2)
    must(fired == 10 and beats == 5, "%d timers, %d beats", fired, beats)
    for i = 1, 10 do
        must(order[i] == i, "timers of one time are out of order")
    end
end

function roles.main()
    local ends, alive = {}, 0
    local function watch(handle, may_die)
        alive = alive + 1
        context.monitor(
            handle,
            guard(function(who, reason, detail)
                must(who == handle and not ends[handle], "the end of %s is told twice", who)
                ends[handle] = reason
                alive = alive - 1
                must(reason == "normal" or may_die and reason == "killed", "%s: %s", reason, detail)
            end)
        )
        return handle
    end
    local sums = { frames = 0, queries = 0 }
    local taken, failure = {}, nil
    context.recv(0, function(_, what)
        failure = failure or what.failure
        if what.number then taken[what.number] = what.taken end
        sums.frames = sums.frames + (what.frames or 0)
        sums.queries = sums.queries + (what.queries or 0)
    end)

    local pushers, agents, workers = {}, {}, {}
    for i = 1, 2 do
        pushers[i] = watch(new("pusher", i))
    end
    for i = 1, random(1, 3) do
        agents[i] = watch(new("agent"), kill)
    end
    for _, agent in ipairs(agents) do
        context.send(agent, { peers = agents })
    end
    local server = watch(new("server", pushers))
    local ok, port = context.query(server, "port")
    must(ok, "no port: %s", port)
    local collector = watch(
        context.create(
            { file = script, mailbox = random(4, 64) },
            "collector",
            script,
            main,
            calm,
            kill
        )
    )
    local function work(handle) workers[#workers + 1] = watch(handle) end
    for _ = 1, random(1, 4) do
        work(new("client", port, #pushers))
    end
    for _ = 1, random(1, 3) do
        work(new("asker", agents))
    end
    for i = 1, random(1, 3) do
        work(new("flooder", i, collector))
    end
    if kill then
        for _, agent in ipairs(agents) do
            if random(2) == 1 then
                timer.timeout(random() * 0.5, function() context.destroy(agent, "by chance") end)
            end
        end
    end
    context.run(guard(check_timers))

    for _, worker in ipairs(workers) do
        local how, code = context.wait(worker)
        must(how and code == 0 or code == NO_CONTEXT, "wait: %s", code)
    end
    local counts
    repeat
        ok, counts = context.query(collector, "counts")
        must(ok or counts == FULL, "no counts: %s", counts)
        if not ok then timer.sleep(0.1) end
    until ok
    local messages = 0
    for number, count in pairs(taken) do
        must(
            counts[number] == count or count == 0 and not counts[number],
            "%s messages of flooder %d arrive, %d were taken",
            counts[number],
            number,
            count
        )
        messages = messages + count
    end
    for _, handle in ipairs(pushers) do
        context.send(handle, "stop")
    end
    for _, handle in ipairs(agents) do
        context.send(handle, "stop")
    end
    context.send(server, "stop")
    wait_until("ends are told", function() return alive == 0 end)
    context.recv(0, nil)
    if failure then error(failure, 0) end
    print(("%d frames, %d queries, %d messages"):format(sums.frames, sums.queries, messages))
end

roles[role](select(6, ...))
