-- Misuse raises, and the message bears the line that misused, not one of the library's.

local tap = require("support.tap")

local me = context.self()
local good, listener = tcp.listen("127.0.0.1", 0)
assert(good, listener)
local connected, client = tcp.connect("127.0.0.1", tcp.local_port(listener), 30)
assert(connected, client)

-- Each is compiled with its text as its name. It does not end in the call, which would put another
-- function in its place.
local misuses = {
    'tcp.listen("127.0.0.1", 0, nil)',
    'tcp.listen("127.0.0.1", 0, 5, 6)',
    "tcp.listen(nil, 0)",
    'tcp.listen("::1", 1e9)',
    "tcp.listens(nil)",
    'tcp.listens("/x", 5)',
    'tcp.connect("127.0.0.1", 1, nil)',
    'tcp.connect("127.0.0.1", 1, 0/0)',
    'tcp.connect("127.0.0.1", 1, 1, nil)',
    'tcp.connect("127.0.0.1", 1, 1, print, 5)',
    'tcp.connects("/x", nil)',
    "tcp.accept(5)",
    "tcp.accept(listener, nil)",
    "tcp.accept(client)",
    "tcp.read(listener)",
    "tcp.read(client, nil)",
    "tcp.read(client, 0/0)",
    "tcp.write(client, {})",
    'tcp.write(client, "x", 5)',
    'tcp.write({}, "x")',
    "tcp.write(client, print, true)",
    "tcp.write(5, {})",
    'tcp.write(5, "x", "y")',
    "tcp.set_rwopt(client, 5)",
    "tcp.set_rwopt(client, {read_head_bytes=3})",
    "tcp.get_rwopt(listener)",
    "tcp.set_nodelay(listener)",
    "tcp.fd(listener)",
    'tcp.fd_src("x")',
    "tcp.local_addr(5)",
    'tcp.set_write_limit(client, "x")',
    "tcp.close(5)",
    "context.send(me, print)",
    "context.send(me)",
    "context.send({}, 1)",
    "context.query(me, print)",
    "context.query(me, 1, nil)",
    "context.query(me, 1, 1, 2)",
    "context.query({}, 1)",
    "context.reply(me, 1, print)",
    'context.reply(me, "x", 1)',
    "context.reply(me, 1)",
    "context.recv({})",
    "context.recv(0, 0/0)",
    "context.recv(0, {})",
    "context.wait(0)",
    "context.wait({})",
    "context.wait(77, {})",
    "context.wait(77, 1, {})",
    "context.create(5)",
    'context.create("x", print)',
    "context.destroy({})",
    "context.destroy(1, {})",
    "context.run(5)",
    'context.strerror("x")',
    "context.name({})",
    'timer.sleep("x")',
    "timer.sleep(0/0)",
    'timer.timeout("x", print)',
    "timer.timeout(1, 2)",
    "timer.loop(1, {}, print)",
    "timer.loop(1, 1, 3)",
    "coroutine.resume(5)",
    "coroutine.yield(5)",
    "require(nil)",
    'require("no.such.module")',
    "listener:read()",
    'client:write(("x"):rep(10), {})',
}

local env = setmetatable({ me = me, client = client, listener = listener }, { __index = _G })

local function check(misuse)
    local source = "local result = " .. misuse .. " return result"
    local f = setfenv(assert(loadstring(source, "=here")), env)
    local returned, message = pcall(f)
    local found = not returned and tostring(message):find("^here:1: ") ~= nil
    tap.ok(found, misuse, tostring(message))
end

tap.test("the line of misuse", function()
    for _, misuse in ipairs(misuses) do
        check(misuse)
    end
    listener:close()
    check("listener:accept()")
    client:close()
    check("client:read()")
    check('client:write("x")')
    check("client:set_rwopt({})")
end)

tap.test("codes", function()
    tap.is(context.strerror(208), "timeout", "have a text")
    for _, code in ipairs({ -5, 0 / 0, 1e10, 199 }) do
        tap.is(context.strerror(code), "unknown error", "what is none has a generic one")
    end
end)

tap.done()
