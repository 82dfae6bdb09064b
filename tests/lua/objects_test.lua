-- Objects of FFI as arguments and options of every public function and method: a null pointer,
-- which `==` takes for nil, and structures whose `__eq` raises or says that all are equal. None is
-- taken for something else: an error names the function and the value.

local ffi = require("ffi")
local tap = require("support.tap")
local certificates = require("support.certificates")
local modules = { context = context, tcp = tcp, udp = udp, timer = timer, buffer = buffer }
modules.packet, modules.supervisor = require("packet"), require("supervisor")
-- Those that are not in every build.
modules.json, modules.msgpack, modules.cjson = json, msgpack, json and require("cjson")
modules.tls, modules.http, modules.websocket = tls, http, websocket

local function ignore() end

local function structure(equal) return ffi.metatype("struct { int x; }", { __eq = equal })() end
local OBJECTS = {
    { "a null pointer", ffi.new("void *") },
    { "one that raises", structure(function() error("compared") end) },
    { "one that is equal", structure(function() return true end) },
}

-- One place that everything is called from.
local function call(f, ...)
    local results = { f(...) }
    return unpack(results)
end
local PLACE = ("%s:%d: "):format(arg[0], debug.getinfo(call).lastlinedefined - 2)

-- Those whose one argument may be any value.
local TAKES_ANY = { ["context.log"] = true, ["tcp.is_closed"] = true, ["udp.is_closed"] = true }
-- Those whose table may have any key.
local TAKES_KEYS = {}
for name in ("json msgpack"):gmatch("%S+") do
    TAKES_KEYS[name .. ".array"], TAKES_KEYS[name .. ".object"] = true, true
end
TAKES_KEYS["layout.encode"] = true
-- Functions without arguments, which look at none.
local TAKES_NONE = {}
for name in ("self parent ncpu thread nodes node list"):gmatch("%S+") do
    TAKES_NONE["context." .. name] = true
end
TAKES_NONE["timer.now"], TAKES_NONE["timer.time"] = true, true

local raised = 0
local function refused(what, name, f, arguments, n)
    local good, why = pcall(call, f, unpack(arguments, 1, n))
    if good then return tap.ok(false, what, "it returned") end
    raised = raised + 1
    why = tostring(why)
    local rest = why:sub(1, #PLACE) == PLACE and why:sub(#PLACE + 1)
    -- What lua-cjson says has no name in it.
    local is_named = rest and (rest:find(name, 1, true) or rest:find("Cannot serialise", 1, true))
    local tells = is_named and rest:find("cdata", 1, true)
    if not tells then tap.ok(false, what, why) end
end

local function copy(list)
    local new = {}
    for key, value in pairs(list) do
        new[key] = value
    end
    return new
end

local is_object = {} -- tables that are no options
-- Calls with each object in each position, in each field of a table and as one more key of it.
local function walk(module, name, f, arguments)
    local n, full = #arguments, module .. "." .. name
    for _, object in ipairs(OBJECTS) do
        for position = 1, n do
            local what = ("%s, %s as #%d"):format(full, object[1], position)
            local given, old = copy(arguments), arguments[position]
            given[position] = object[2]
            if TAKES_ANY[full] then
                tap.ok(pcall(f, unpack(given, 1, n)), what)
            else
                refused(what, name, f, given, n)
            end
            if type(old) == "table" and not is_object[old] then
                for key in pairs(old) do
                    given[position] = copy(old)
                    given[position][key] = object[2]
                    local field = ("%s, field %s"):format(what, tostring(key))
                    refused(field, name, f, given, n)
                end
                given[position] = copy(old)
                given[position][object[2]] = 1
                if not TAKES_KEYS[full] then refused(what .. ", a key", name, f, given, n) end
            end
        end
    end
end

-- Every function of a module, or methods of an object, with arguments that are right.
local function walk_all(module, functions, calls)
    for name, f in pairs(functions) do
        local arguments = calls[name]
        if type(f) == "function" and not TAKES_NONE[module .. "." .. name] then
            if not arguments then
                tap.ok(false, module .. "." .. name, "no arguments are known for it")
            else
                walk(module, name, f, arguments)
            end
        end
    end
end

local me, gone = context.self(), 2 ^ 40
local _, listener = tcp.listen("127.0.0.1", 0)
local port = tcp.local_port(listener)
local _, stream = tcp.connect("127.0.0.1", port)
local _, datagram = udp.open("127.0.0.1", 0)

local calls = {
    context = {
        create = {
            {
                file = "/nowhere/x.lua",
                name = "x",
                mailbox = 1,
                queries = 1,
                memory = 1e6,
                turn_limit = 1,
                worker = 0,
                deny = { "io" },
            },
            1,
        },
        destroy = { gone, "x" },
        name = { me },
        send = { me, 1 },
        query = { me, 1, 1, ignore },
        reply = { me, 1, 1 },
        recv = { me, 1 },
        wait = { gone, 1, ignore },
        run = { ignore },
        check = { true },
        strerror = { 1 },
        log = { "x" },
        monitor = { gone, ignore },
        stat = { me },
        register = { "x", { shared = true } },
        unregister = { "x" },
        find = { "x" },
        publish = { "x", 1 },
        subscribe = { "x", ignore },
        unsubscribe = { "x" },
        on_signal = { "HUP", ignore },
        on_error = { ignore },
        exit = { 1 },
    },
    timer = {
        sleep = { 1 },
        timeout = { 1, ignore },
        loop = { 1, 1, ignore },
        close = { 1 },
    },
    tcp = {
        listen = { "127.0.0.1", 0, 10, ignore },
        listen6 = { "::1", 0, true, ignore },
        listens = { "/nowhere/x", ignore },
        accept = { listener, 1 },
        connect = { "127.0.0.1", port, 1, ignore },
        connect6 = { "::1", port, 1, ignore },
        connects = { "/nowhere/x", 1, ignore },
        read = { stream, 1 },
        read_bytes = { stream, 1, 1 },
        read_until = { stream, "x", 1, 1 },
        read_into = { stream, buffer.new(), 1 },
        write = { stream, "x", false },
        shutdown = { stream },
        close = { stream },
        abort = { stream },
        is_closed = { stream },
        monitor = { stream, ignore },
        set_rwopt = {
            stream,
            {
                read_head_bytes = 2,
                read_head_max = 9,
                read_head_endian = "L",
                write_head_bytes = 2,
            },
        },
        get_rwopt = { stream },
        reframe = { stream, { read_head_bytes = 2 } },
        set_nodelay = { stream, true },
        set_keepalive = { stream, 1, 1, 1 },
        local_addr = { stream },
        local_port = { stream },
        remote_addr = { stream },
        remote_port = { stream },
        fd = { stream },
        fd_src = { 1 },
        set_wshared = { stream, false },
        stat = { stream },
        set_write_limit = { stream, 1000 },
        start_tls = { stream, tls and select(2, tls.client({})), "localhost", 1 },
        tls = { stream },
    },
    udp = {
        open = { "127.0.0.1", 0, ignore },
        open6 = { "::1", 0, ignore },
        read = { datagram, 1 },
        write = { datagram, "x", "127.0.0.1", 9, true },
        write6 = { datagram, "x", "::1", 9, true },
        connect = { datagram, "127.0.0.1", 9 },
        close = { datagram },
        is_closed = { datagram },
        local_addr = { datagram },
        local_port = { datagram },
        fd = { datagram },
        fd_src = { 1 },
        set_wshared = { datagram, false },
        join = { datagram, "239.0.0.1", "127.0.0.1" },
        leave = { datagram, "239.0.0.1", "127.0.0.1" },
        set_broadcast = { datagram, true },
        set_ttl = { datagram, 1 },
        stat = { datagram },
    },
    json = {
        encode = {
            1,
            {
                max_depth = 9,
                max_bytes = 9,
                sort_keys = true,
                empty = "array",
                invalid_utf8 = "raise",
            },
        },
        decode = {
            "1",
            { max_depth = 9, max_bytes = 9, drop_nulls = true, int64 = false, mark_arrays = true },
        },
        array = { {} },
        object = { {} },
    },
    cjson = {
        encode = { 1 },
        decode = { "1" },
        new = {},
        encode_sparse_array = { true, 1, 1 },
        encode_number_precision = { 14 },
        encode_invalid_numbers = { "null" },
    },
    packet = { layout = { { { "a", "u8", 2 }, endian = "B" } } },
    supervisor = {
        start = {
            {
                { "/nowhere/x.lua", restart = "permanent", n = 1 },
                strategy = "one_for_one",
                intensity = 1,
                period = 1,
                on_exit = ignore,
                on_finish = ignore,
            },
        },
    },
    msgpack = {
        encode = { 1, { max_depth = 9, max_bytes = 9, sort_keys = true, empty = "array" } },
        decode = { "1", { max_depth = 9, max_bytes = 9, int64 = false } },
        array = { {} },
        object = { {} },
        ext = { 1, "x" },
    },
    tls = {
        client = {
            {
                ca = certificates.ca,
                verify = true,
                cert = certificates.cert,
                key = certificates.key,
                alpn = { "a" },
                min_version = "1.2",
            },
        },
        server = {
            {
                cert = certificates.cert,
                key = certificates.key,
                sni = { a = { certificates.cert, certificates.key } },
                client_ca = certificates.ca,
                client_optional = true,
                alpn = { "a" },
                min_version = "1.2",
            },
        },
    },
}
if http then
    local function handler() end
    local request = {
        url = "http://127.0.0.1:9/",
        method = "PUT",
        headers = { a = "b" },
        body = "x",
        trailers = { a = "b" },
        timeout = 1,
        redirect = true,
        max_redirects = 1,
        proxy = false,
    }
    calls.http = {
        request = { request },
        get = { request.url, { timeout = 1, headers = { a = "b" }, redirect = true } },
        post = { request.url, "x", { timeout = 1, headers = { a = "b" } } },
        serve = {
            "127.0.0.1",
            0,
            {
                http2 = true,
                reuse_port = false,
                head_bytes = 1024,
                headers = 9,
                body_bytes = 9,
                head_timeout = 1,
                idle_timeout = 1,
                body_rate = 1,
            },
            handler,
        },
    }
    if tls then
        request.url, request.tls = "https://127.0.0.1:9/", select(2, tls.client({}))
        local server = { cert = certificates.cert, key = certificates.key }
        calls.http.serve[3].tls = select(2, tls.server(server))
    end
end
if websocket then
    local options = {
        protocols = { "a" },
        max_message = 9,
        deflate = true,
        ping_interval = 1,
        idle_timeout = 1,
        kind = "text",
    }
    calls.websocket = { accept = { stream, options }, options = options }
    local more = copy(options)
    more.headers, more.timeout = { a = "b" }, 1
    calls.websocket.connect = { "ws://127.0.0.1:9/", more }
end
for name in ("encode_max_depth decode_max_depth"):gmatch("%S+") do
    calls.cjson[name] = { 10 }
end
for name, f in pairs(modules.cjson or {}) do
    if type(f) == "function" then calls.cjson[name] = calls.cjson[name] or { true } end
end

-- Buffers: each call with one of its own.
local b = buffer.new("12345678")
calls.buffer = {
    new = { 9, "x" },
    append = { b, "x" },
    split = { b, 1 },
    slice = { b, 0, 1 },
    find = { b, "x", 1 },
    remove = { b, 1 },
    pack = { b, "i4", 1 },
    unpack = { b, "i1", 1 },
    packsize = { "i4" },
    put = { b, "x" },
    text = { b, 0, 1 },
    index_of = { b, 49, 0 },
    varint = { b, 0 },
    zigzag = { b, 0 },
    put_varint = { b, 1 },
    put_zigzag = { b, 1 },
    reserve = { b, 1 },
    commit = { b, 1 },
    skip = { b, 1 },
    byte = { b, 0 },
}
for name in ("clear length unfill tostring valid release ptr reset"):gmatch("%S+") do
    calls.buffer[name] = { b }
end
for name in pairs(buffer) do
    if name:find("^set_[uif]%d") then
        calls.buffer[name] = { b, 0, 1 }
    elseif name:find("^put_[uif]%d") then
        calls.buffer[name] = { b, 1 }
    elseif name:find("^[uif]%d") then
        calls.buffer[name] = { b, 0 }
    end
end

tap.test("modules", function()
    for name, functions in pairs(modules) do
        walk_all(name, functions, calls[name] or {})
    end
end)

tap.test("objects", function()
    local layout = modules.packet.layout({ { "id", "u8" }, { "pos", "u8", 2 }, { "n", "varint" } })
    local bytes = layout:encode({ id = 1, pos = { 1, 2 }, n = 3 })
    is_object[layout] = true
    local values = { id = 1, pos = { 1, 2 }, n = 3 }
    local function encode(...) return layout.encode(layout, ...) end
    local function decode(...) return layout.decode(layout, ...) end
    walk("layout", "encode", encode, { values, buffer.new() })
    walk("layout", "decode", decode, { bytes, 0 })
    walk_all(
        "layout.get",
        layout.get,
        { id = { bytes, 0 }, pos = { bytes, 0, 1 }, n = { bytes, 0 } }
    )
    walk_all("layout.set", layout.set, { id = { bytes, 0, 1 }, pos = { bytes, 0, 1, 1 } })
    local s = modules.supervisor.start({ { "none.lua", restart = "temporary" } })
    is_object[s] = true
    walk("supervisor", "handle", s.handle, { s, 1 })
    walk("supervisor", "stop", s.stop, { s })
    s:stop()
end)

-- Of what HTTP and WebSocket have the methods are known to their metatables alone.
local function walk_methods(module, object, methods)
    is_object[object] = true
    for name, arguments in pairs(methods) do
        walk(module, name, object[name], { object, unpack(arguments) })
    end
end
local BODY = { read = { 1 }, text = { 9 }, body = { 9 }, json = { 9 } }
local WS = {
    recv = { 1 },
    send = { "x", "text", true },
    ping = { "x" },
    close = { 1000, "x" },
    protocol = {},
    fd = {},
    stat = {},
    monitor = { ignore },
}

tap.test("http", function()
    if not http then return end
    local _, server = http.serve("127.0.0.1", 0, function(req, res)
        if req.path == "/ws" then
            is_object[req], is_object[res] = true, true
            walk("websocket", "accept", websocket.accept, { req, res, calls.websocket.options })
            local _, ws = websocket.accept(req, res)
            walk_methods("ws", ws, WS)
            return ws:recv()
        end
        walk_methods("request", req, BODY)
        walk("request", "form", req.form, { req, 9 })
        walk_methods("headers", req.headers, { all = { "host" } })
        walk_methods("answer", res, {
            status = { 200 },
            header = { "a", "b" },
            trailer = { "a", "b" },
            write = { "x" },
            finish = { "x" },
            json = { 1 },
            sendfile = { "x" },
        })
        res:finish()
    end)
    local address = "127.0.0.1:" .. server:port()
    local response = context.check(http.get("http://" .. address))
    walk_methods("response", response, BODY)
    walk_methods("response", response, { close = {} })
    if websocket then
        local ws = context.check(websocket.connect("ws://" .. address .. "/ws"))
        walk_methods("ws", ws, WS)
        ws:close()
    end
    walk_methods("server", server, { close = { 1 }, port = {} })
    server:close(0)
end)
tap.ok(raised > 100, "they raise", tostring(raised))
os.exit(pcall(tap.done) and 0 or 1)
