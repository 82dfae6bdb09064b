-- Wrong arguments: every public function and method, in every position, with every kind of wrong
-- value, called in every way. What raises names the function and the value, with the line of this
-- script, and nothing of the library's.

local ffi = require "ffi"
local packet, supervisor = require "packet", require "supervisor"

local failures, checks, raised = 0, 0, 0

-- The one place that everything is called from.
local function attempt(f, ...)
    local function results(...) return ... end
    return results(f(...))
end
local PLACE = ("%s:%d: "):format(arg[0], debug.getinfo(attempt).lastlinedefined - 1)

-- Ways to call: as it is, by a tail call, in a coroutine, deep in the stack.
local function tail(f, ...) return f(...) end
local function deep(level, ...)
    if level == 0 then return attempt(...) end
    return (deep(level - 1, ...))
end
local WAYS = {
    attempt,
    function(...) return attempt(tail, ...) end,
    function(f, ...)
        local co = coroutine.create(attempt)
        local ok, why = coroutine.resume(co, f, ...)
        if not ok then error(why, 0) end
    end,
    function(...) return deep(150, ...) end,
}

local _, listener = tcp.listen("127.0.0.1", 0)
local _, socket = tcp.connect("127.0.0.1", tcp.local_port(listener))
local _, closed = tcp.connect("127.0.0.1", tcp.local_port(listener))
closed:close()
local _, dead_listener = tcp.listen("127.0.0.1", 0)
dead_listener:close()
local released = buffer.new("gone")
released:release()

local function ignore() end
local ABSENT = {}
-- Value, and what of it an error must mention.
local VALUES = {
    { nil, "nil" },
    { ABSENT, "no value", "nil" },
    { true, "boolean true" },
    { false, "boolean false" },
    { "abc", 'string "abc"' },
    { "", 'string ""' },
    { 'a\0\n"', 'string "a\\0\\n\\""' },
    { ("x"):rep(5000), '..." of 5000 bytes' },
    { -1, "number -1" },
    { 0.5, "number 0.5" },
    { 0 / 0, "nan" },
    { 1 / 0, "number inf" },
    { 2 ^ 53, "number 9.007" },
    { 1e300, "number 1e+300" },
    { 7LL, "cdata 7LL" },
    { {}, "table" },
    { ignore, "function" },
    { coroutine.create(ignore), "thread", "coroutine" },
    { io.stdout, "userdata" },
    { socket, "tcp socket", "connected" },
    { closed, "closed" },
    { listener, "tcp listen socket", "listening" },
    { dead_listener, "closed", "listening" },
    { buffer.new("x"), "a buffer" },
    { released, "released" },
}

local function complain(...)
    failures = failures + 1
    print("not ok", ...)
end

-- What an error says, if it is as it should be.
local function judge(where, name, text, words, ...)
    raised = raised + 1
    if type(text) ~= "string" then return complain(where, "raises no text", text) end
    if text:sub(1, #PLACE) ~= PLACE then return complain(where, "another place:", text) end
    local rest = text:sub(#PLACE + 1)
    if rest:find("node-lua", 1, true) or rest:find("%.lua") then
        return complain(where, "internals:", text)
    end
    if not rest:find(name, 1, true) then complain(where, "does not name the function:", text) end
    local tells = rest:find(words[2], 1, true) or words[3] and rest:find(words[3], 1, true)
    for i = 1, select("#", ...) do
        tells = tells or rest:find((select(i, ...)))
    end
    if not tells then complain(where, "does not tell the value:", text) end
end

-- Calls f with a wrong value at `position` of good ones, in a root of its own: it may wait.
local function check(name, f, arguments, position, words, ...)
    local given, n = {}, math.max(#arguments, position)
    for i = 1, n do
        given[i] = arguments[i]
    end
    if words[1] == ABSENT then
        n = position - 1
    else
        given[position] = words[1]
    end
    local where = ("%s, position %d, %s"):format(name, position, words[2])
    for number, way in ipairs(WAYS) do
        checks = checks + 1
        context.run(function(...)
            local fine, text = pcall(way, f, unpack(given, 1, n))
            if not fine then judge(where .. ", way " .. number, name, text, words, ...) end
        end, ...)
    end
end

local function every(name, f, arguments, ...)
    for position = 1, #arguments do
        for _, words in ipairs(VALUES) do
            check(name, f, arguments, position, words, ...)
        end
    end
end

local function buffers()
    local b = buffer.new("abc")
    for _, name in ipairs { "append", "find" } do
        every(name, buffer[name], { b, "b" })
    end
    every("find", buffer.find, { b, "b", 1 })
    for _, name in ipairs { "split", "remove" } do
        every(name, buffer[name], { buffer.new(b), 1 })
    end
    for _, name in ipairs { "length", "unfill", "tostring", "valid" } do
        every(name, buffer[name], { b })
    end
    every("new", buffer.new, { 5, "abc" })
    every("slice", buffer.slice, { buffer.new("abc"), 0, 0 })
    -- A number is as good as its text.
    local text = 'got string "'
    every("unpack", buffer.unpack, { b, "i1", 1 }, "^unpack: ", text)
    every("packsize", buffer.packsize, { "i1" }, text, "got no value")
    every("pack", buffer.pack, { "i4", 1 }, text, "got no value")
    every("pack", buffer.pack, { "<d", 1 }, text, "got no value")
    every("pack", buffer.pack, { "s1", "x" }, text, "got no value")
    every("pack", buffer.pack, { "z", "x" }, text, "got no value")
    for kind in ("u8 i8 u16be i16le u32le i32be u64le i64be f32le f64be"):gmatch("%S+") do
        local wide = buffer.new("12345678")
        local offset = "offset [%-%d]"
        every(kind, buffer[kind], { wide, 0 }, offset, "offset inf")
        every("set_" .. kind, buffer["set_" .. kind], { wide, 0, 1 }, offset, "offset inf")
        every("put_" .. kind, buffer["put_" .. kind], { buffer.new(), 1 })
    end
    local offset = "offset [%-%di]"
    for _, name in ipairs { "varint", "zigzag", "byte" } do
        every(name, buffer[name], { b, 0 }, offset)
    end
    for _, name in ipairs { "put_varint", "put_zigzag", "commit", "skip", "reserve" } do
        every(name, buffer[name], { buffer.new("12345678"), 1 }, "exceeds the limit")
    end
    every("put", buffer.put, { buffer.new(), "x" })
    every("text", buffer.text, { b, 0, 1 }, offset)
    every("index_of", buffer.index_of, { b, 97, 0 }, offset)
    for _, name in ipairs { "ptr", "reset" } do
        every(name, buffer[name], { buffer.new(b) })
    end
end

local function packets()
    local layout = packet.layout {
        { "id", "u16" },
        { "pos", "f32", 3 },
        { "tag", "char", 4 },
        { "name", "s1" },
        { "n", "varint" },
    }
    local function good() return { id = 1, pos = { 1, 2, 3 }, tag = "ab", name = "x", n = 5 } end
    local b = layout:encode(good())
    local at = "at offset [%-%di]"
    every("layout", packet.layout, { { { "a", "u8" } } }, "got one of 0")
    every("encode", layout.encode, { layout, good(), buffer.new() }, "got nil")
    every("decode", layout.decode, { layout, b, 0 }, at, "past the end")
    every("get.id", layout.get.id, { b, 0 }, at)
    every("get.pos", layout.get.pos, { b, 0, 1 }, at)
    every("set.id", layout.set.id, { b, 0, 1 }, at)
    every("set.pos", layout.set.pos, { b, 0, 1, 1 }, at)
    every("set.tag", layout.set.tag, { b, 0, "x" }, at)
    for field in pairs(good()) do
        local function encode(value)
            local values = good()
            values[field] = value
            return layout:encode(values)
        end
        every("encode", encode, { 1 }, "got one of", "got nil")
    end
    every("start", supervisor.start, { { { "x" } } })
    for _, option in ipairs { "strategy", "intensity", "period" } do
        local function start(value) return supervisor.start({ { "none" }, [option] = value }) end
        for _, words in ipairs(VALUES) do
            local may_do = words[1] == nil or words[1] == ABSENT or type(words[1]) == "number"
            if not may_do and words[1] then check("start", start, {}, 1, words) end
        end
    end
end

local function timers()
    every("sleep", timer.sleep, { 1e6 })
    every("timeout", timer.timeout, { 1e6, ignore })
    every("loop", timer.loop, { 1e6, 1e6, ignore })
    every("close", timer.close, { 1 })
end

local function sockets()
    local port = tcp.local_port(listener)
    every("listen", tcp.listen, { "127.0.0.1", 0, 10, ignore }, "'listen'")
    every("connect", tcp.connect, { "127.0.0.1", port, 10, ignore })
    for _, words in ipairs(VALUES) do
        -- No socket is left behind.
        if words[1] ~= "abc" then check("listens", tcp.listens, { nil, ignore }, 1, words) end
        check("listens", tcp.listens, { "/nowhere/at/all" }, 2, words)
    end
    every("connects", tcp.connects, { "/nowhere/at/all", 10, ignore })
    every("accept", tcp.accept, { dead_listener, 0.001 }, "needs an open one", "a connected one")
    for name, arguments in pairs {
        read = { closed, 0.001 },
        read_into = { closed, buffer.new(), 1 },
        write = { closed, "x", true },
        set_nodelay = { socket, true },
        set_wshared = { socket, false },
        fd = { socket },
        set_rwopt = { socket, {} },
        get_rwopt = { socket },
        stat = { socket },
        local_addr = { socket },
        local_port = { socket },
        remote_addr = { socket },
        remote_port = { socket },
        set_write_limit = { socket, 1e6 },
        fd_src = { 1 },
        monitor = { socket, ignore },
        read_bytes = { closed, 1, 1 },
        read_until = { closed, "x", 10, 1 },
        reframe = { socket, {} },
        shutdown = { closed },
        set_keepalive = { closed, 10, 10, 10 },
    } do
        every(name, tcp[name], arguments, "needs an open one")
    end
    every("read", tcp.read, { socket, 0.001 })
    every("read_into", tcp.read_into, { socket, buffer.new() })
    every("write", tcp.write, { socket, "x", false })
end

local function datagrams()
    local _, sock = udp.open("127.0.0.1", 0)
    local _, gone = udp.open("127.0.0.1", 0)
    gone:close()
    every("open", udp.open, { "127.0.0.1", 0, ignore }, "got number 0")
    every("open6", udp.open6, { "::1", 0, ignore }, "got number 0")
    for name, arguments in pairs {
        read = { gone, 0.001 },
        write = { gone, "x", "127.0.0.1", 9, true },
        write6 = { gone, "x", "::1", 9, true },
        connect = { gone, "127.0.0.1", 9 },
        set_wshared = { sock, false },
        set_broadcast = { sock, true },
        set_ttl = { sock, 1 },
        join = { sock, "239.0.0.1", "127.0.0.1" },
        leave = { sock, "239.0.0.1", "127.0.0.1" },
        fd = { sock },
        fd_src = { 1 },
        stat = { sock },
        local_addr = { sock },
        local_port = { sock },
        is_closed = { sock },
        close = { gone },
    } do
        every(name, udp[name], arguments, "needs an open one")
    end
    every("read", udp.read, { sock, 0.001 })
    every("write", udp.write, { sock, "x", "127.0.0.1", 9, false }, "not connected")
    every("write6", udp.write6, { sock, "x", "::1", 9, false }, "not connected")
    every("connect", udp.connect, { sock, "127.0.0.1", 9 })
end

local function contexts()
    local gone = 2 ^ 40
    every("send", context.send, { gone, 1 })
    every("query", context.query, { gone, 1, 1, ignore })
    every("reply", context.reply, { gone, 1, 1 })
    every("recv", context.recv, { gone, 1e6 })
    every("wait", context.wait, { gone, 1e6, ignore })
    every("monitor", context.monitor, { gone, ignore })
    every("stat", context.stat, { gone })
    every("run", context.run, { ignore })
    every("strerror", context.strerror, { 1 })
    for _, words in ipairs(VALUES) do
        if type(words[1]) ~= "string" then
            check("create", context.create, {}, 1, words, "got nil")
            check("destroy", context.destroy, { gone, "x" }, 2, words)
        end
    end
    for option in ("file name mailbox queries memory turn_limit worker deny"):gmatch("%S+") do
        for _, words in ipairs(VALUES) do
            if words[1] ~= nil and words[1] ~= ABSENT then
                check(
                    "create",
                    function(value)
                        return context.create({ file = "/nowhere/x.lua", [option] = value })
                    end,
                    {},
                    1,
                    words
                )
            end
        end
    end
end

-- One argument more than a function takes, where somebody might pass it: it would do nothing. A
-- null pointer, which is equal to nil, is one too.
local function more()
    -- What compiled code calls for every value lets a nil pass.
    local may_pass = { [tcp.write] = true }
    for name in ("put put_u8 put_u32be put_f64le put_varint put_zigzag"):gmatch("%S+") do
        may_pass[buffer[name]] = true
    end
    local function refuses(name, f, ...)
        local given = { ... }
        local n = select("#", ...) + 1
        local function refuse(one, said)
            given[n] = one
            local ok, text = pcall(f, unpack(given, 1, n))
            local wanted = "bad argument #%d to '%s' (no more arguments expected, got %s)"
            wanted = wanted:format(n, name, said)
            checks = checks + 1
            if ok or not text:find(wanted, 1, true) then complain("wanted", wanted, "got", text) end
        end
        refuse(5, "number 5")
        refuse(ignore, "function")
        refuse(ffi.new("void *"), "cdata")
        if not may_pass[f] then refuse(nil, "nil") end
    end
    local _, sock = udp.open("127.0.0.1", 0)
    local me = context.self()
    local port = tcp.local_port(listener)
    refuses("send", context.send, me, 1)
    refuses("reply", context.reply, me, 1, 1)
    refuses("publish", context.publish, "topic", 1)
    refuses("recv", context.recv, me, 1)
    refuses("recv", context.recv, me, ignore)
    refuses("query", context.query, me, 1, 1, ignore)
    refuses("query", context.query, me, 1, ignore)
    refuses("wait", context.wait, 77, 1, ignore)
    refuses("wait", context.wait, 77, ignore)
    refuses("listen", tcp.listen, "127.0.0.1", 0, ignore)
    refuses("listen", tcp.listen, "127.0.0.1", 0, 5, ignore)
    refuses("listen6", tcp.listen6, "::1", 0, true, ignore)
    refuses("listens", tcp.listens, "/nowhere/at/all", ignore)
    refuses("connect", tcp.connect, "127.0.0.1", port, ignore)
    refuses("connect", tcp.connect, "127.0.0.1", port, 1, ignore)
    refuses("connects", tcp.connects, "/nowhere/at/all", 1, ignore)
    refuses("accept", tcp.accept, listener, 1)
    refuses("accept", tcp.accept, listener, ignore)
    refuses("read", tcp.read, socket, ignore)
    for name, arguments in pairs {
        read = { 1 },
        read_into = { buffer.new(), 1 },
        read_bytes = { 1, 1 },
        read_until = { "x", 10, 1 },
        set_keepalive = { 10, 10, 10 },
        set_nodelay = { true },
        set_rwopt = { {} },
        reframe = { {} },
        write = { "x", false },
        monitor = { ignore },
        shutdown = {},
        set_write_limit = { 1000 },
    } do
        refuses(name, tcp[name], socket, unpack(arguments))
    end
    for name, arguments in pairs {
        append = { "x" },
        put = { "x" },
        put_u8 = { 1 },
        put_u32be = { 1 },
        put_f64le = { 1 },
        put_varint = { 1 },
        put_zigzag = { 1 },
    } do
        refuses(name, buffer[name], buffer.new(), unpack(arguments))
    end
    refuses("sleep", timer.sleep, 0)
    refuses("start", supervisor.start, {})
    for name, arguments in pairs {
        destroy = { 2 ^ 40, "x" },
        monitor = { 2 ^ 40, ignore },
        subscribe = { "a", ignore },
        register = { "a", {} },
        on_signal = { "HUP", ignore },
        on_error = { ignore },
        exit = { 1 },
    } do
        refuses(name, context[name], unpack(arguments))
    end
    refuses("set_ttl", udp.set_ttl, sock, 1)
    if tls then
        refuses("client", tls.client, {})
        refuses("server", tls.server, {})
    end
    refuses("read", udp.read, sock, 1)
    refuses("write", udp.write, sock, "x", "127.0.0.1", 9, false)
    refuses("join", udp.join, sock, "239.0.0.1", "127.0.0.1")
    refuses("leave", udp.leave, sock, "239.0.0.1", "127.0.0.1")
    for _, module in pairs { json or false, msgpack or false } do
        if module then
            refuses("encode", module.encode, {}, {})
            refuses("decode", module.decode, "1", {})
        end
    end
    if not http then return end
    refuses("get", http.get, "http://localhost/", {})
    refuses("post", http.post, "http://localhost/", "x", {})
    refuses("request", http.request, {})
    local _, server
    _, server = http.serve("127.0.0.1", 0, function(req, res)
        if req.path == "/ws" then
            local _, ws = websocket.accept(req, res)
            return ws:recv(60)
        end
        for _, name in ipairs { "read", "text", "body", "json" } do
            refuses(name, req[name], req, 1)
        end
        for name, arguments in pairs {
            status = { 200 },
            header = { "a", "b" },
            trailer = { "a", "b" },
            write = { "x" },
            json = { 1 },
            sendfile = { "x" },
            finish = { "x" },
        } do
            refuses(name, res[name], res, unpack(arguments))
        end
        return 200
    end)
    context.run(function()
        local address = "127.0.0.1:" .. server:port()
        local _, res = http.get("http://" .. address)
        for _, name in ipairs { "read", "text", "body", "json" } do
            refuses(name, res[name], res, 1)
        end
        res:close()
        if websocket then
            local _, ws = websocket.connect("ws://" .. address .. "/ws")
            refuses("send", ws.send, ws, "x", "text", true)
            refuses("send", ws.send, ws, "x", nil, nil)
            refuses("ping", ws.ping, ws, "x")
            refuses("recv", ws.recv, ws, 1)
            refuses("close", ws.close, ws, 1000, "x")
            ws:close()
        end
        refuses("close", server.close, server, 0)
        server:close(0)
    end)
end

-- As methods: the position does not count the object, and what is no object is bad self.
local function methods()
    local b = buffer.new("abc")
    local ok, text = pcall(function() b:append({}) end)
    local function is(wanted)
        checks = checks + 1
        if ok or not text:find(wanted, 1, true) then complain("wanted", wanted, "got", text) end
    end
    is("bad argument #1 to 'append' (string, number or buffer expected, got table)")
    local odd = setmetatable({}, { __index = { append = buffer.append, read = tcp.read } })
    ok, text = pcall(function() odd:append("x") end)
    is("calling 'append' on bad self (buffer expected, got table)")
    ok, text = pcall(function() odd:read() end)
    is("calling 'read' on bad self (tcp socket expected, got table)")
    ok, text = pcall(function() socket:read("abc") end)
    is("bad argument #1 to 'read' (number of seconds expected, got string \"abc\")")
    ok, text = pcall(function() tcp.read(socket, "abc") end)
    is("bad argument #2 to 'read' (number of seconds expected, got string \"abc\")")
    -- Called by a function of the VM, and straight from it.
    ok, text = pcall(table.sort, { 3, 2, 1 }, timer.sleep)
    is(arg[0] .. ":")
    ok, text = pcall(timer.sleep, "abc")
    is(arg[0] .. ":")
end

local areas = { buffers, packets, timers, sockets, datagrams, contexts, methods, more }
local function pass()
    for _, area in ipairs(areas) do
        area()
    end
end

pass()
-- Once more out of a callback; what is run then runs after all that.
timer.timeout(0, function()
    pass()
    context.run(function()
        local fine = failures == 0 and checks > 10000 and raised > 5000
        print(fine and "ok" or ("%d of %d failed, %d raised"):format(failures, checks, raised))
        os.exit(fine and 0 or 1)
    end)
end)
