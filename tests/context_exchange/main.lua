-- Enumerates the points at which either side of an exchange may end, and checks that whoever waits
-- gets a result, an error, or its timeout. Prints what is wrong, and how many cases there were.

local here = arg[0]:match("^(.*)/") .. "/"
local me = context.self()
local HOST = "127.0.0.1"
-- Bound by whoever runs this, and nobody listens there.
local DEAF_PORT = tonumber(arg[1])
local LONG, SHORT = 60, 0.02

local ENDINGS = { "normal", "error", "killed", "memory", "time" }
local FORMS = { "waiting", "callback" }

local open, count = {}, 0

-- Starts a case. `body` gets a function to be called with the outcome; `allowed` lists outcomes.
local function case(name, allowed, body)
    assert(not open[name], name)
    open[name] = true
    context.run(function()
        body(function(ok, code)
            if not open[name] then print("twice", name) end
            open[name] = nil
            count = count + 1
            local outcome = ok and "ok" or tostring(code)
            local is_allowed = false
            for _, one in ipairs(allowed) do
                is_allowed = is_allowed or one == outcome
            end
            if not is_allowed then print("wrong", name, outcome) end
        end)
    end)
end

-- Calls f(..., timeout) in one of its forms, and `done` with the outcome.
local function ask(form, timeout, done, f, ...)
    local n, arguments = select("#", ...), { ... }
    if timeout then
        n = n + 1
        arguments[n] = timeout
    end
    if form == "waiting" then return done(f(unpack(arguments, 1, n))) end
    arguments[n + 1] = done
    local ok, code = f(unpack(arguments, 1, n + 1))
    if ok == false then done(false, code) end
end

-- Calls body(form, timeout, name) for each form, with and without a timeout that is far away.
local function each_form(name, body)
    for _, form in ipairs(FORMS) do
        for _, timeout in ipairs({ false, LONG }) do
            body(
                form,
                timeout,
                ("%s, %s, %s"):format(name, form, timeout and "timeout" or "no timeout")
            )
        end
    end
end

local function create(file, ...)
    return context.create({ file = here .. file, memory = 8 * 2 ^ 20, turn_limit = 0.05 }, ...)
end

-- Contexts that ask main for something. One that asks a question ends before it is answered.
context.recv(0, function(_, what, from, session)
    if what == "kill me" then
        context.destroy(from, "as it asked")
    elseif session > 0 then
        context.wait(from)
        context.send(me, { name = what, result = { context.reply(from, session, 1) } })
    end
end)

-- Queries and waits: the one that is asked ends ---------------------------------------------------

local POINTS = { before = "205", queued = "207", taken = "207", answered = "ok" }

for _, ending in ipairs(ENDINGS) do
    for point, outcome in pairs(POINTS) do
        each_form(("query, ends %s: %s"):format(point, ending), function(form, timeout, name)
            case(name, { outcome }, function(done)
                local h = create("peer.lua", me, point, ending)
                if point == "before" then context.wait(h) end
                ask(form, timeout, done, context.query, h, "question")
            end)
        end)
    end
    for point, outcome in pairs({ before = "205", queued = "ok" }) do
        each_form(("wait, ends %s: %s"):format(point, ending), function(form, timeout, name)
            case(name, { outcome }, function(done)
                local h = create("peer.lua", me, point, ending)
                if point == "before" then context.wait(h) end
                context.run(context.send, h, "go on")
                ask(form, timeout, done, context.wait, h)
            end)
        end)
    end
end

for _, form in ipairs(FORMS) do
    case("query, no answer, " .. form, { "208" }, function(done)
        local h = create("peer.lua", me, "never")
        ask(form, SHORT, function(...)
            done(...)
            context.destroy(h)
        end, context.query, h, "question")
    end)
    case("wait, no end, " .. form, { "208" }, function(done)
        local h = create("peer.lua", me, "never")
        ask(form, SHORT, function(...)
            done(...)
            context.destroy(h)
        end, context.wait, h)
    end)
end

-- Queries: the one that asks ends -----------------------------------------------------------------

local answered = {}
context.recv(me, function(_, told)
    local done = answered[told.name]
    answered[told.name] = nil
    done(unpack(told.result))
end)

for _, ending in ipairs(ENDINGS) do
    local name = "the asker ends before the answer: " .. ending
    case(name, { "205" }, function(done)
        answered[name] = done
        create("asker.lua", me, name, ending)
    end)
end

-- Whatever a context waits for, it can be ended ---------------------------------------------------

for _, form in ipairs(FORMS) do
    for _, operation in ipairs({
        "query",
        "wait",
        "recv",
        "accept",
        "read",
        "connect",
        "write",
        "sleep",
    }) do
        case(
            ("%s, %s, its context is destroyed"):format(operation, form),
            { "ok" },
            function(done) done(context.wait(create("blocker.lua", me, operation, form))) end
        )
    end
end

-- Sockets -----------------------------------------------------------------------------------------

local function listen(backlog)
    local ok, listener = tcp.listen(HOST, 0, backlog or 100)
    assert(ok, listener)
    return listener, tcp.local_port(listener)
end

-- A listener with as many connections waiting as it may have: the next one is not answered.
local function listen_full()
    local listener, port = listen(1)
    local waiting = {}
    repeat
        local ok, sock = tcp.connect(HOST, port)
        assert(ok, sock)
        waiting[#waiting + 1] = sock
        local figures = listener:stat()
    until figures.backlog > figures.backlog_max
    return listener, port, waiting
end

local function pair()
    local listener, port = listen()
    local ok, a = tcp.connect(HOST, port)
    assert(ok, a)
    local _, b = listener:accept()
    listener:close()
    return a, b
end

-- A connection to a context that does `action` with its end, and then ends.
local function remote(action, ending)
    local listener, port = listen()
    local h = create("remote.lua", me, port, action, ending)
    local ok, sock = listener:accept()
    assert(ok, sock)
    listener:close()
    return sock, h
end

local GONE = { "1", "13" }
local BIG = ("x"):rep(16 * 2 ^ 20)

local function raises(f, ...)
    local ok, why = pcall(f, ...)
    return not ok and why:find("closed", 1, true) ~= nil, why
end

for _, form in ipairs(FORMS) do
    local function read(sock, done)
        ask(form, false, function(...)
            done(...)
            sock:close()
        end, tcp.read, sock)
    end
    local function write(sock, done)
        if form == "waiting" then
            done(tcp.write(sock, BIG, true))
        else
            tcp.write(sock, BIG, done)
        end
    end

    case("read, closed before, " .. form, { "ok" }, function(done)
        local a, b = pair()
        a:close()
        done(raises(tcp.read, a, form == "callback" and print or nil))
        b:close()
    end)
    case("read, the peer closed before, " .. form, GONE, function(done)
        local a, b = pair()
        b:close()
        read(a, done)
    end)
    case("read, the peer closes, " .. form, GONE, function(done)
        local a, b = pair()
        context.run(tcp.close, b)
        read(a, done)
    end)
    case("read, data and end, " .. form, { "ok" }, function(done)
        local a, b = pair()
        b:write("x")
        b:close()
        read(a, function(ok, data)
            -- The callback is called once more, with the end.
            if done then done(ok, data) end
            done = nil
        end)
    end)
    case("write, the peer closed before, " .. form, { "13", "36" }, function(done)
        local a, b = pair()
        b:write("never read")
        a:write("never read")
        b:close()
        write(a, done)
    end)
    case("write, the peer closes, " .. form, { "13", "36" }, function(done)
        local a, b = pair()
        context.run(tcp.close, b)
        write(a, done)
    end)
    case("write, closed, and the peer reads, " .. form, { "ok" }, function(done)
        local a, b = pair()
        b:read(function(ok)
            if not ok then b:close() end
        end)
        context.run(tcp.close, a)
        write(a, done)
    end)
    case("write, closed, and the peer closes, " .. form, { "13", "36" }, function(done)
        local a, b = pair()
        context.run(function()
            a:close()
            b:close()
        end)
        write(a, done)
    end)
    for _, ending in ipairs(ENDINGS) do
        case(
            ("read, the peer's context ends: %s, %s"):format(ending, form),
            GONE,
            function(done) read(remote("ends", ending), done) end
        )
        case(
            ("read, data, the peer's context ends: %s, %s"):format(ending, form),
            { "ok" },
            function(done)
                read(remote("writes", ending), function(ok, data)
                    if done then done(ok, data) end
                    done = nil
                end)
            end
        )
        case(
            ("write, the peer's context ends: %s, %s"):format(ending, form),
            { "13", "36" },
            function(done) write(remote("reads once", ending), done) end
        )
        case(("accept, the peer ends: %s, %s"):format(ending, form), { "ok" }, function(done)
            local listener, port = listen()
            create("remote.lua", me, port, "ends", ending)
            ask(form, false, function(_, sock)
                listener:close()
                read(
                    sock,
                    function(fine, code) done(not fine and (code == 1 or code == 13), code) end
                )
            end, tcp.accept, listener)
        end)
    end
    case("accept, closed before, " .. form, { "ok" }, function(done)
        local listener = listen()
        listener:close()
        done(raises(tcp.accept, listener, form == "callback" and print or nil))
    end)
    each_form("connect, nobody listens, " .. form, function(how, timeout, name)
        case(
            name,
            { "12" },
            function(done) ask(how, timeout, done, tcp.connect, HOST, DEAF_PORT) end
        )
    end)
    case("connect, the backlog is full, " .. form, { "208" }, function(done)
        local listener, port, waiting = listen_full()
        ask(form, SHORT, function(...)
            done(...)
            listener:close()
            for _, sock in ipairs(waiting) do
                sock:close()
            end
        end, tcp.connect, HOST, port)
    end)
    each_form("connect, the listener closes, " .. form, function(how, timeout, name)
        case(name, { "12", "13" }, function(done)
            local listener, port = listen_full()
            context.run(tcp.close, listener)
            ask(how, timeout, done, tcp.connect, HOST, port)
        end)
    end)
end

-- Forms that only waiting calls have: a callback is dropped when its own socket is closed.
case("read, closed meanwhile", { "203" }, function(done)
    local a, b = pair()
    context.run(tcp.close, a)
    done(a:read())
    b:close()
end)
case("read, closed meanwhile, timeout", { "203" }, function(done)
    local a, b = pair()
    context.run(tcp.close, a)
    done(a:read(LONG))
    b:close()
end)
case("read, nothing comes", { "208" }, function(done)
    local a, b = pair()
    done(a:read(SHORT))
    a:close()
    b:close()
end)
case("accept, closed meanwhile", { "204" }, function(done)
    local listener = listen()
    context.run(tcp.close, listener)
    done(listener:accept())
end)
case("accept, closed meanwhile, timeout", { "204" }, function(done)
    local listener = listen()
    context.run(tcp.close, listener)
    done(listener:accept(LONG))
end)
case("accept, nobody comes", { "208" }, function(done)
    local listener = listen()
    done(listener:accept(SHORT))
    listener:close()
end)

-- Far above what a loaded machine needs: by then, whatever is open hangs.
local alarm = timer.timeout(50, function()
    for name in pairs(open) do
        print("hangs", name)
    end
    os.exit(1)
end)
while next(open) do
    timer.sleep(0.005)
end
timer.close(alarm)
context.recv(0, nil)
context.recv(me, nil)
print(count .. " cases")
