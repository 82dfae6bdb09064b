-- Tables of options, lists, counts, handles and arguments too many: what is not known, what is
-- missing in between, and what is no whole number raises, and names the function and the value.

local tap = require("support.tap")
local packet, supervisor = require("packet"), require("supervisor")
local ok, is, raises = tap.ok, tap.is, tap.raises

local function ignore() end

-- Raises a message that has all of these parts, with the line of this script.
local function names(what, parts, f, ...)
    local good, message = pcall(f, ...)
    if good then return ok(false, what, "it returned") end
    for _, part in ipairs(parts) do
        ok(message:find(part, 1, true) ~= nil, what, part .. " is not in: " .. message)
    end
end

-- Numbers that are no counts, and what a message says of them.
local NO_COUNTS = {
    { 1.5, "number 1.5" },
    { 0 / 0, "nan" },
    { 1 / 0, "number inf" },
    { -1 / 0, "number -inf" },
    { -1, "number -1" },
    { 1e300, "number 1e+300" },
}

-- Where there may be no limit at all, `allowed` says that.
local function counts(what, f, allowed)
    for _, pair in ipairs(NO_COUNTS) do
        local is_wrong = pair[1] ~= allowed and not (allowed and pair[1] == 1e300)
        if is_wrong then names(what, { "whole number", pair[2] }, f, pair[1]) end
    end
end

tap.test("layouts", function()
    local layout = packet.layout
    local u8 = { "a", "u8" }
    names(
        "an option",
        { "'layout'", 'no option named string "edian"' },
        layout,
        { u8, edian = "B" }
    )
    names("a key", { "no option named boolean true" }, layout, { u8, [true] = 1 })
    names("position 0", { "no option named number 0" }, layout, { u8, [0] = u8 })
    names("half a position", { "no option named number 1.5" }, layout, { u8, [1.5] = u8 })
    names("a hole", { "field 2 of 'layout'", "got nil" }, layout, { u8, nil, { "b", "u8" } })
    names("a late field", { "one of 1000" }, layout, { u8, [1000] = { "b", "u8" } })
    names("endian", { "'endian'", "boolean false" }, layout, { u8, endian = false })
    names("a second table", { "#2 to 'layout'", "one table", "table" }, layout, { u8 }, {})
    names("of a field", { "field 1 of", 'string "x"' }, layout, { { "a", "u8", x = 1 } })
    names("too much in a field", { "field 1", "number 4" }, layout, { { "a", "u8", nil, 1 } })
    names("names in a field", { "field 1", "{ name, type[, count] }" }, layout, { { name = "a" } })
    counts("the count of a field", function(n) layout { { "a", "u8", n } } end)
    names(
        "a hole in an array",
        { "'pos'", "got one of 1" },
        function() layout({ { "pos", "u8", 3 } }):encode({ pos = { 1, [3] = 3 } }) end
    )
    names(
        "too much in an array",
        { "'pos'", "one of 4" },
        function() layout({ { "pos", "u8", 3 } }):encode({ pos = { 1, 2, 3, 4 } }) end
    )
end)

tap.test("options of contexts", function()
    for _, option in ipairs({ "mailbox", "queries", "memory" }) do
        counts(option, function(n) context.create({ file = "x.lua", [option] = n }) end)
    end
    names(
        "no option",
        { "'create'", 'string "mailbx"' },
        context.create,
        { file = "x", mailbx = 1 }
    )
    names("a position", { "'create'", "number 1" }, context.create, { "x.lua" })
    local holes = { file = "x.lua", deny = { "io", nil, "os" } }
    names("a hole", { "deny[2]", "got nil" }, context.create, holes)
    names("of a name", { "'register'", 'string "share"' }, context.register, "n", { share = true })
    names("no boolean", { "'shared'", "number 1" }, context.register, "n", { shared = 1 })
end)

tap.test("options of supervisors", function()
    local start = supervisor.start
    local child = { "x.lua" }
    counts("intensity", function(n) start({ child, intensity = n }) end, 1 / 0)
    names("a hole", { "child 2", "got nil" }, start, { child, nil, child })
    names("n", { "n of child 1", "from 1 to 1000" }, start, { { "x.lua", n = 2 ^ 31 } })
    names("half an n", { "n of child 1", "number 1.5" }, start, { { "x.lua", n = 1.5 } })
    names("no option", { 'string "edian"' }, start, { child, edian = 1 })
    names("of a child", { "child 1", 'string "edian"' }, start, { { "x.lua", edian = 1 } })
    local s = start({ { "none.lua", restart = "temporary" } })
    names("child 2", { "'handle'", "1 to 1", "number 2" }, function() s:handle(2) end)
    names("half a child", { "'handle'", "number 1.5" }, function() s:handle(1.5) end)
    s:stop()
end)

local _, listener = tcp.listen("127.0.0.1", 0)
local port = tcp.local_port(listener)
local _, socket = tcp.connect("127.0.0.1", port)

tap.test("options of sockets", function()
    for _, way in ipairs({ "read", "write" }) do
        for _, field in ipairs({ "bytes", "max" }) do
            local name = way .. "_head_" .. field
            for _, wrong in ipairs({ 1.5, 0 / 0, 1 / 0, 1e300, 2 ^ 60 }) do
                local said = "whole number expected, got number "
                names(name, { name, said }, tcp.set_rwopt, socket, { [name] = wrong })
            end
        end
        local name, long = way .. "_head_endian", ("L"):rep(500)
        names(name, { name, '..." of 500 bytes' }, tcp.set_rwopt, socket, { [name] = long })
        names(name, { name, "tcp socket" }, tcp.set_rwopt, socket, { [name] = socket })
    end
    counts("set_write_limit", function(n) tcp.set_write_limit(socket, n) end, 1 / 0)
    counts("find", function(n) buffer.new("abc"):find("b", n) end)
end)

tap.test("arguments too few", function()
    raises("send", "#1 to 'send' (context handle or name expected, got no", context.send)
    raises("send", "#2 to 'send' (value expected, got no value)", context.send, 5)
    raises("query", "#1 to 'query' (context handle or name expected", context.query)
    raises("query", "#2 to 'query' (value expected, got no value)", context.query, 5)
    raises("reply", "#3 to 'reply' (value expected, got no value)", context.reply, 5, 5)
    raises("publish", "#2 to 'publish' (value expected, got no value)", context.publish, "t")
    raises("on_signal", "#2 to 'on_signal' (function or nil", context.on_signal, "HUP")
end)

tap.test("handles", function()
    local calls = {
        send = function(h) return context.send(h, 1) end,
        query = function(h) return context.query(h, 1) end,
        reply = function(h) return context.reply(h, 1, 1) end,
        recv = function(h) return context.recv(h) end,
        wait = function(h) return context.wait(h) end,
        monitor = function(h) return context.monitor(h, ignore) end,
        stat = function(h) return context.stat(h) end,
        name = function(h) return context.name(h) end,
        destroy = function(h) return context.destroy(h) end,
    }
    for name, call in pairs(calls) do
        for _, wrong in ipairs({ 1.5, 0 / 0, 1 / 0, -1 / 0, "1.5" }) do
            names(name, { "#1 to '" .. name .. "' (context handle" }, call, wrong)
        end
    end
    -- Nothing could ever come from these.
    for _, wrong in ipairs({ -1, 2 ^ 53, 1e18, "-1" }) do
        names("recv", { "#1 to 'recv'", tostring(wrong) }, calls.recv, wrong)
        names("recv", { "#1 to 'recv'", tostring(wrong) }, context.recv, wrong, ignore)
    end
    for _, nobody in ipairs({ -1, 0, 1e18 }) do
        is(select(2, calls.send(nobody)), 205, "nobody is sent to")
        is(select(2, calls.query(nobody)), 205, "nobody is asked")
        is(select(2, calls.reply(nobody)), 205, "nobody is answered")
    end
    names("half a session", { "#2 to 'reply'", "number 0.5" }, context.reply, 1, 0.5, 1)
    is(context.strerror(0.5), context.strerror(-1), "half a code is none")
end)

tap.test("numbers of sockets", function()
    for _, wrong in ipairs({ 1.5, 0 / 0, 1 / 0 }) do
        names("write", { "#1 to 'write'", "tcp.fd", tostring(wrong) }, tcp.write, wrong, "x")
        names("fd_src", { "#1 to 'fd_src'", "tcp.fd", tostring(wrong) }, tcp.fd_src, wrong)
    end
    local _, other = tcp.connect("127.0.0.1", port)
    other:set_rwopt({ write_head_bytes = 1, write_head_max = 10 })
    local long = ("x"):rep(11)
    for _, how in ipairs({ false, true, ignore }) do
        names("a long frame", { "#2 to 'write'", "11", "10" }, tcp.write, other, long, how)
    end
    other:close()
end)

tap.test("deadlines that have passed", function()
    local function over(what, good, code)
        is(good, false, what)
        is(code, 208, what)
    end
    over("recv", context.recv(0, -1))
    over("query", context.query(context.self(), 1, -1))
    over("wait", context.wait(77, -1))
    over("read", tcp.read(socket, -1))
    over("read_into", tcp.read_into(socket, buffer.new(), -1))
    over("accept", tcp.accept(listener, -1))
    over("connect", tcp.connect("127.0.0.1", port, -1))
    over("connects", tcp.connects("/nowhere/at/all", -1))
    timer.sleep(-1)
end)

tap.test("long values are cut", function()
    -- Without the place, which may be long.
    local function is_short(good, message, most)
        local text = message:match("^.-:%d+: (.*)") or message
        return not good and #text < most
    end
    for _, wrong in ipairs({ 1e300, -1e300, 2 ^ 60, 1 / 0 }) do
        local good, message = pcall(function() buffer.new("abc"):u8(wrong) end)
        ok(is_short(good, message, 120), "an offset", message)
        good, message = pcall(packet.layout({ { "a", "u8" } }).get.a, buffer.new("abc"), wrong)
        ok(is_short(good, message, 170), "an offset of a packet", message)
    end
end)

-- What is to be on or off is nothing else: anything but nil and false would be on.
tap.test("what is no boolean", function()
    local udp, text = require("udp"), "true or false"
    local sock = context.check(udp.open("127.0.0.1", 0))
    for _, name in ipairs({ "set_wshared", "set_broadcast" }) do
        for _, value in ipairs({ 0, 1, "on", "false", {} }) do
            local given = type(value) == "table" and "table" or tostring(value)
            names(name, { text, "#2 to '" .. name .. "'", given }, udp[name], sock, value)
        end
        names(name, { text, "got no value" }, udp[name], sock)
        names(name, { text, "nil" }, udp[name], sock, nil)
        names(name, { "#3 to '" .. name .. "'" }, udp[name], sock, true, 1)
    end
    sock:close()
end)

-- What stands behind a metatable would pass for nothing.
tap.test("tables behind a metatable", function()
    local text = "metatable with __index"
    local function behind(values) return setmetatable({}, { __index = values }) end
    local file, u8 = "no-such-file", { "a", "u8" }
    local function refuses(what, part, f, ...) names(what, { text, part }, f, ...) end
    local register, start, create = context.register, supervisor.start, context.create
    refuses("create", "#1 to 'create'", create, behind({ file = file }))
    refuses("deny", "'deny' of 'create'", create, { file = file, deny = behind({ "io" }) })
    refuses("by a function", "'deny'", create, { file = file, deny = behind(print) })
    local hidden = setmetatable({}, { __index = { "io" }, __metatable = false })
    refuses("a hidden metatable", "'deny'", create, { file = file, deny = hidden })
    refuses("register", "#2 to 'register'", register, "a", behind({ shared = true }))
    refuses("layout", "#1 to 'layout'", packet.layout, behind({ u8 }))
    refuses("a field", "field 1 of 'layout'", packet.layout, { behind(u8) })
    refuses("supervisor", "#1 to 'start'", start, behind({ { file } }))
    refuses("a child", "child 1 of 'start'", start, { behind({ file }) })
    refuses("its options", "options of child 1", start, { { behind({ file = file }) } })
    local denies = { file = file, deny = behind({ "io" }) }
    refuses("what it denies", "deny of child 1 of 'start'", start, { { denies } })
    for _, module in ipairs({ "json", "msgpack" }) do
        -- A build may be without it.
        local is_there, m = pcall(require, module)
        if not is_there then break end
        refuses(module, "#2 to 'encode'", m.encode, 1, behind({ max_depth = 1 }))
        refuses(module, "#2 to 'decode'", m.decode, "1", behind({ max_depth = 1 }))
    end
    local good, l = tcp.listen("127.0.0.1", 0)
    local connected, c = tcp.connect("127.0.0.1", l:local_port())
    ok(good and connected, "a connection")
    refuses("set_rwopt", "#2 to 'set_rwopt'", tcp.set_rwopt, c, behind({ read_head_bytes = 2 }))
    c:set_rwopt(setmetatable({ read_head_bytes = 2 }, {}))
    tap.is(c:get_rwopt().read_head_bytes, 2, "other metatables change nothing")
    c:close()
    l:close()
    if not (tls and json) then return end -- a build without them
    local identity = behind({ cert = "cert.pem", key = "key.pem" })
    refuses("tls.client", "#1 to 'client'", tls.client, behind({ verify = false }))
    refuses("its protocols", "'alpn' of 'client'", tls.client, { alpn = behind({ "a" }) })
    refuses("tls.server", "#1 to 'server'", tls.server, behind({ cert = "a", key = "b" }))
    refuses("its names", "'sni' of 'server'", tls.server, { sni = behind({ a = {} }) })
    refuses("one of them", "sni['a']", tls.server, { sni = { a = identity } })
    local options = json.decode('{ "file": "x", "deny": [] }')
    local child = create(options)
    ok(child, "what module json returns is plain")
    context.destroy(child)
end)

tap.test("arguments and options of another type", function()
    local good, l = tcp.listen("127.0.0.1", 0)
    local connected, c = tcp.connect("127.0.0.1", l:local_port())
    ok(good and connected, "a connection")
    for _, name in ipairs({ "set_nodelay", "set_wshared" }) do
        local where = "'" .. name .. "' (true or false expected, got "
        names(name, { where .. "no value" }, tcp[name], c)
        names(name, { where .. "nil" }, tcp[name], c, nil)
        names(name, { where .. 'string "no"' }, tcp[name], c, "no")
        names(name, { where .. "number 0" }, tcp[name], c, 0)
        names(name, { "#3 to '" .. name .. "'", "no more arguments" }, tcp[name], c, true, 1)
    end
    for _, field in ipairs({ "read_head_bytes", "write_head_bytes", "read_head_max" }) do
        local parts = { field .. ": whole number expected", 'string "2"' }
        names(field, parts, tcp.set_rwopt, c, { [field] = "2" })
    end
    names("set_rwopt", { "#3", "no more arguments" }, tcp.set_rwopt, c, {}, 5)
    c:close()
    l:close()
    local new = buffer.new
    names("text and text", { "#1 to 'new' (capacity", 'string "x"' }, new, "x", "y")
    names("none and text", { "#1 to 'new' (capacity", "got nil" }, new, nil, "x")
    names("buffer and text", { "#1 to 'new' (capacity", "got a buffer" }, new, new("x"), "x")
    names("three", { "#3 to 'new' (no more arguments" }, new, 1, "x", 2)
    tap.is(#new(1, nil) + #new("x", nil), 1, "nil is none")
    names("no name", { "name of field 1", 'string ""' }, packet.layout, { { "", "u8" } })
    names("no name", { "name of 1 to 253 bytes", 'string ""' }, context.name, "")
    names(
        "an argument of a child",
        { "#3 of child 2 to 'start'", "value is a function" },
        supervisor.start,
        { { "no-such-file" }, { "no-such-file", 1, print } }
    )
end)

tap.done()
os.exit(0)
