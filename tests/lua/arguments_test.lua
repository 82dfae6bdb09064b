-- Every public function and method, in every position, with every field of its options, and with
-- one argument more: what its kind of argument does not accept raises, and says which function,
-- which argument, what was expected and what was given, with the line of this script and nothing
-- of the library's. What it does accept does not raise, and what it returns is as all calls return
-- it.

local ffi = require("ffi")
local kinds = require("support.kinds")
local SIGNATURES = require("support.signatures")
local modules = { context = context, tcp = tcp, udp = udp, timer = timer, buffer = buffer }
modules.packet, modules.supervisor = require("packet"), require("supervisor")
-- Those that are not in every build.
modules.json, modules.msgpack, modules.cjson = json, msgpack, json and require("cjson")
modules.tls, modules.http, modules.websocket = tls, http, websocket

local failures, refused, accepted = 0, 0, 0
local function complain(...)
    failures = failures + 1
    print("not ok", ...)
end

-- Values ------------------------------------------------------------------------------------------

local function ignore() end
local ABSENT = {}
local closed, closed_listener = kinds.closed, kinds.closed_listener
local released = buffer.new("gone")
released:release()
local function structure(equal) return ffi.metatype("struct { int x; }", { __eq = equal })() end
local NULL = ffi.new("void *")
local cyclic = {}
cyclic[1] = cyclic

-- Each, and what an error may say of it: of tables also what is wrong in them, or missing, and of
-- numbers that are positions in lists what is missing in front.
local VALUES = {
    { nil, "nil", "no value", "got one of 0", "no children", "no certificate" },
    { ABSENT, "no value", "nil", "function expected, got table" },
    { true, "boolean true" },
    { false, "boolean false" },
    { "abc", '"abc"' },
    { "", '""' },
    { "7", '"7"' },
    { "0.5", '"0.5"' },
    { 'a\0\n"', '"a\\0\\n\\""' },
    { "\255\254", '"\\xff\\xfe"' },
    { ("x"):rep(20000), '..." of 20000 bytes', "got 20000 bytes" },
    { -1, "-1" },
    { 0, "0" },
    { 0.5, "0.5" },
    { 1, "1" },
    { 0 / 0, "nan" },
    { 1 / 0, "inf" },
    { -1 / 0, "-inf" },
    { 2 ^ 31, "2147483648", "got nil" },
    { 2 ^ 53, "9.007", "9007199254740992", "got nil" },
    { 1e300, "1e+300", "got nil" },
    { 7LL, "7LL" },
    { {}, "table", "got nil", "of 0", "no children", "no certificate", label = "{}" },
    { { 1, 2 }, "table", "number 1", "got nil", label = "{ 1, 2 }" },
    { { 1, nil, 3 }, "table", "number 1", "got nil", label = "{ 1, nil, 3 }" },
    { { edian = 1 }, "table", '"edian"', "got nil", label = "{ edian = 1 }" },
    { cyclic, "table", "number 1", "got nil", label = "a cycle" },
    { setmetatable({}, { __index = ignore }), "table", "got nil", label = "one with __index" },
    { ignore, "function" },
    { coroutine.create(ignore), "thread", "coroutine" },
    { io.stdout, "userdata" },
    { newproxy(true), "userdata" },
    { kinds.stream.good, "tcp socket", "connected", "got table" },
    { kinds.listener.good, "tcp listen socket", "listening" },
    { kinds.datagram.good, "udp socket" },
    { closed, "closed", "tcp socket", "connected", "got table" },
    { closed_listener, "closed", "listening", "tcp listen socket" },
    { kinds.closed_datagram, "closed", "udp socket" },
    { buffer.new("x"), "a buffer", "of 0 bytes" },
    { released, "released", "a buffer" },
    -- `==` takes the first for nil, raises for the second, and takes the third for anything.
    { NULL, "cdata" },
    { structure(function() error("compared") end), "cdata" },
    { structure(function() return true end), "cdata" },
}

-- Calls -------------------------------------------------------------------------------------------

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

local function is_absent(value) return rawequal(value, ABSENT) end
local function can_be_key(key)
    return type(key) ~= "nil" and not is_absent(key) and not (type(key) == "number" and key ~= key)
end

local function find_any(text, parts, from)
    for i = from, #parts do
        if text:find(parts[i], 1, true) then return true end
    end
end

-- What an error says, if it is as it should be.
local EXPECTATIONS = {
    "outside the buffer",
    "expected",
    "needs an open one",
    "is not 0 to",
    "is outside",
    "is released",
    "unknown option",
    "must be 0 with",
    "no option named",
    "is said",
    "exceeds",
    "past the end",
    "travel",
}
local function judge(where, name, field, text, words)
    refused = refused + 1
    if type(text) ~= "string" then return complain(where, "raises no text", text) end
    if text:sub(1, #PLACE) ~= PLACE then return complain(where, "another place:", text) end
    local rest = text:sub(#PLACE + 1)
    if rest:find("node-lua", 1, true) or rest:find("%.lua") or rest:find("'?'", 1, true) then
        return complain(where, "internals:", text)
    end
    if not rest:find(name, 1, true) then complain(where, "does not name the function:", text) end
    if field and not rest:find(field, 1, true) then
        complain(where, "does not name the option:", text)
    end
    if not find_any(rest, EXPECTATIONS, 1) then complain(where, "expects nothing:", text) end
    if not find_any(rest, words, 2) then complain(where, "does not tell the value:", text) end
end

-- What a call returns that was right: nothing, or true and more, or false and a code that there is.
local GENERIC = context.strerror(-1)
local function judge_results(where, good, ...)
    if not good then return complain(where, "was refused:", ...) end
    accepted = accepted + 1
    local first, code = ...
    if type(first) ~= "boolean" or first or select("#", ...) == 1 then return end
    if type(code) ~= "number" or context.strerror(code) == GENERIC then
        complain(where, "fails without a code:", ...)
    end
end

-- Calls f in every way, in a root of its own: it may wait.
local function call(where, name, field, f, may_do, words, arguments, n)
    for number, way in ipairs(WAYS) do
        if may_do and number > 1 then break end
        context.run(function()
            local label = ("%s, way %d"):format(where, number)
            if may_do then return judge_results(label, pcall(way, f, unpack(arguments, 1, n))) end
            local good, text = pcall(way, f, unpack(arguments, 1, n))
            if good then return complain(label, "was taken") end
            judge(label, name, field, text, words)
        end)
    end
end

local function make(kind)
    if kind.make then return kind.make() end
    if kind.fields then
        local made = {}
        for field, inner in pairs(kind.fields) do
            local is_needed = inner:sub(1, 1) == "!"
            if is_needed then made[field] = make(kinds[inner:sub(2)]) end
        end
        return made
    end
    if kind.list then return { make(kinds[kind.list]) } end
    if kind.map then return { name = make(kinds[kind.map]) } end
    return kind.good
end

local function parse(signature)
    local parts = { is_final = signature:sub(1, 1) == "!" }
    for token in signature:gsub("^!", ""):gmatch("%S+") do
        if token == "..." then
            parts.is_open = true
        elseif token == "(nil)" then
            parts.lets_nil_pass = true
        else
            local name, marks = token:match("^(.-)([?~]*)$")
            local part = { kind = kinds[name], name = name }
            part.may_miss, part.may_be_nil = marks:find("?") ~= nil, marks:find("~") ~= nil
            parts[#parts + 1] = part
        end
    end
    return parts
end

local function walk_fields(where, name, kind, try, position)
    -- Every field, with every value.
    for field, inner in pairs(kind.fields) do
        local is_needed = inner:sub(1, 1) == "!"
        local of_kind = kinds[is_needed and inner:sub(2) or inner]
        local label = ("%s.%s"):format(where, tostring(field))
        local shown = type(field) == "string" and field or nil
        local function try_field(more, value, may_do, words, inner_field)
            local given = make(kind)
            given[field] = value
            try(label .. more, given, may_do, words, inner_field or shown)
        end
        for _, words in ipairs(VALUES) do
            if not is_absent(words[1]) then
                local is_nil = type(words[1]) == "nil"
                local may_do = is_nil and not is_needed or not is_nil and of_kind.accepts(words[1])
                try_field(" = " .. (words.label or words[2]), words[1], may_do, words)
            end
        end
        if of_kind.fields then walk_fields(label, name, of_kind, try_field, position) end
    end
    if kind.takes_keys then return end
    -- Keys that are no options.
    for _, words in ipairs(VALUES) do
        local key = words[1]
        if can_be_key(key) and type(kind.fields[key]) == "nil" then
            local given = make(kind)
            given[key] = 1
            try(where .. ", key " .. (words.label or words[2]), given, false, words)
        end
    end
end

local function walk(where, name, f, signature)
    local parts = parse(signature)
    local count = #parts
    local function arguments()
        local list = {}
        for i = 1, count do
            list[i] = make(parts[i].kind)
        end
        return list
    end
    for position = 1, count do
        local part = parts[position]
        local label = ("%s, #%d"):format(where, position)
        local function try(more, value, may_do, words, field)
            if may_do and parts.is_final then return end
            local list = arguments()
            list[position] = value
            call(more, name, field, f, may_do, words, list, count)
        end
        for _, words in ipairs(VALUES) do
            local value = words[1]
            if is_absent(value) then
                local may_do = true
                for i = position, count do
                    may_do = may_do and parts[i].may_miss
                end
                if not (may_do and parts.is_final) then
                    call(label .. " absent", name, nil, f, may_do, words, arguments(), position - 1)
                end
            else
                local may_do = type(value) == "nil" and part.may_be_nil or part.kind.accepts(value)
                try(label .. " = " .. (words.label or words[2]), value, may_do, words)
            end
        end
        if part.kind.fields then walk_fields(label, name, part.kind, try) end
    end
    if parts.is_open then return end
    local more = { { 5, "5" }, { ignore, "function" }, { NULL, "cdata" }, { nil, "nil" } }
    for _, words in ipairs(more) do
        local list = arguments()
        list[count + 1] = words[1]
        if type(words[1]) ~= "nil" or not parts.lets_nil_pass then
            call(where .. ", one more", name, nil, f, false, words, list, count + 1)
        end
    end
end

local function sorted(functions)
    local names = {}
    for name in pairs(functions) do
        names[#names + 1] = name
    end
    table.sort(names)
    return ipairs(names)
end

-- Every function of a module.
local function walk_module(module, functions, signatures)
    for _, name in sorted(functions) do
        local f = functions[name]
        if type(f) == "function" then
            local where = module .. "." .. name
            local known = signatures[name]
            if not known then complain(where, "what it takes is not known") end
            for _, signature in ipairs(type(known) == "table" and known or { known }) do
                walk(where, name, f, signature)
            end
        end
    end
end

for _, name in sorted(modules) do
    walk_module(name, modules[name], SIGNATURES[name])
end
-- Methods of an object; that itself is of kind "self".
local function walk_methods(module, object, signatures, accepts)
    kinds.self = {
        good = object,
        accepts = accepts and function(v) return rawequal(v, object) or accepts(v) end
            or function(v) return rawequal(v, object) end,
    }
    for name, signature in pairs(signatures) do
        walk(module .. ":" .. name, name, object[name], signature)
    end
end

local layout = modules.packet.layout({
    { "id", "u8" },
    { "pos", "u8", 2 },
    { "speed", "f32" },
    { "tag", "char", 4 },
    { "name", "s1" },
    { "n", "varint" },
})
kinds.pair = { good = { 1, 2 }, accepts = function(v) return type(v) == "table" and #v == 2 end }
local function of_text(most)
    return { good = "x", accepts = function(v) return type(v) == "string" and #v <= most end }
end
kinds.tag, kinds.short = of_text(4), of_text(255)
kinds.values = {
    fields = {
        id = "!byte",
        pos = "!pair",
        speed = "!f32",
        tag = "!tag",
        name = "!short",
        n = "!varint",
    },
    takes_keys = true,
    accepts = function() return false end,
}
-- Of which any part is a packet of zeros, too.
kinds.packet = {
    make = function() return buffer.new(("\0"):rep(32)) end,
    accepts = function() return false end,
}
walk("layout.encode", "encode", layout.encode, "!any~ values buffer?~ ...")
walk("layout.decode", "decode", layout.decode, "any~ packet at?~ ...")
for field, signature in pairs({ id = "packet at?~ ...", pos = "packet at~ 1..2 ..." }) do
    walk("layout.get." .. field, field, layout.get[field], signature)
end
for field, signature in pairs({
    id = "packet at~ byte ...",
    pos = "packet at~ 1..2 byte ...",
    speed = "packet at~ f32 ...",
    tag = "packet at~ tag ...",
}) do
    walk("layout.set." .. field, field, layout.set[field], signature)
end

local supervisor = modules.supervisor.start({ { "none.lua", restart = "temporary" } })
walk_methods("supervisor", supervisor, { handle = "self 1..1", stop = "!self" })
if tls then walk_methods("tls", kinds.server_config.good, { reload = "self ..." }) end

local BODY = {
    read = "!self seconds?~",
    text = "!self most?~",
    body = "!self most?~",
    json = "!self most?~",
}
local WS = {
    recv = "!self seconds_or_callback?",
    send = "!self data form?~ how?~",
    ping = "!self data?~",
    close = "!self close_code?~ reason?~",
    protocol = "self ...",
}
-- Which tcp has, too.
local WS_SHARED = {
    fd = "self ...",
    monitor = "!self callback_or_nil",
    set_wshared = "self on",
    set_write_limit = "self write_limit",
}

-- As methods: the position does not count the object, and what is no object is bad self.
local function check_methods()
    local function is(wanted, f, ...)
        local ok, text = pcall(f, ...)
        if ok or not text:find(wanted, 1, true) then complain("wanted", wanted, "got", text) end
    end
    local b, socket = buffer.new("abc"), kinds.stream.good
    local odd = setmetatable({}, { __index = { append = buffer.append, read = tcp.read } })
    local reads = "to 'read' (number of seconds expected, got string \"abc\")"
    is(
        "bad argument #1 to 'append' (string, number or buffer expected, got table)",
        function() b:append({}) end
    )
    is("calling 'append' on bad self (buffer expected, got table)", function() odd:append("x") end)
    is("calling 'read' on bad self (tcp socket expected, got table)", function() odd:read() end)
    is("bad argument #1 " .. reads, function() socket:read("abc") end)
    is("bad argument #2 " .. reads, function() tcp.read(socket, "abc") end)
    -- Called by a function of the VM, and straight from it.
    is(arg[0] .. ":", table.sort, { 3, 2, 1 }, timer.sleep)
    is(arg[0] .. ":", timer.sleep, "abc")
end

-- What a handler and a client have is walked where they have it. All calls are made in roots that
-- have begun before the last one.
local left = http and (websocket and 4 or 2) or 0
local function conclude()
    if left > 0 then return end
    context.run(function()
        check_methods()
        local fine = failures == 0 and refused > 20000 and accepted > 500
        print(fine and "ok" or "not ok", failures, refused, accepted)
        os.exit(fine and 0 or 1)
    end)
end
local function walked()
    left = left - 1
    conclude()
end

if http then
    local _, server
    _, server = http.serve("127.0.0.1", 0, function(req, res)
        if req.path == "/ws" then
            kinds.answer = { good = res, accepts = function(v) return rawequal(v, res) end }
            kinds.self = { good = req, accepts = function(v) return rawequal(v, req) end }
            walk("websocket.accept", "accept", websocket.accept, "!self answer accept_options?~")
            local _, ws = websocket.accept(req, res)
            walk_methods("ws", ws, WS)
            walk_methods("ws", ws, WS_SHARED, kinds.stream.accepts)
            walk_methods("ws", ws, { stat = "self ..." }, kinds.socket.accepts)
            walked()
            return ws:recv()
        end
        walk_methods("request", req, BODY)
        walk_methods("request", req, { form = "!self most?~" })
        kinds.headers = { good = req.headers, accepts = function(v) return type(v) == "table" end }
        walk("headers:all", "all", req.headers.all, "headers string ...")
        walk_methods("answer", res, {
            status = "self 200..599",
            header = "!self header_name header",
            trailer = "!self header_name header",
            write = "!self data",
            finish = "!self data?~",
            json = "!self any",
            sendfile = "!self string",
        })
        walked()
    end)
    local address = "127.0.0.1:" .. server:port()
    context.run(function()
        local response = context.check(http.get("http://" .. address))
        walk_methods("response", response, BODY)
        walk_methods("response", response, { close = "!self ..." })
        walk_methods("server", server, { close = "!self seconds?~", port = "self ..." })
        walked()
    end)
    if websocket then
        context.run(function()
            local ws = context.check(websocket.connect("ws://" .. address .. "/ws"))
            walk_methods("ws", ws, WS)
            walk_methods("ws", ws, WS_SHARED, kinds.stream.accepts)
            walk_methods("ws", ws, { stat = "self ..." }, kinds.socket.accepts)
            walked()
        end)
    end
end

conclude()
