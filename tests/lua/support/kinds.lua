--- Kinds of arguments and of options: a right value of each, and which others it accepts.
--
--     local kinds = require("support.kinds")
--     kinds.seconds.good, kinds.seconds.accepts(0 / 0)   --> 1000000, false
--     kinds["1..127"].accepts(0.5)                       --> false
--
-- Kinds of tables have `fields`, by their names, or `list` or `map`: the kind of what is in it. In
-- front of a field's kind "!" says that it is needed.

local certificates = require("support.certificates")

local kinds = {}

local function define(name, good, accepts) kinds[name] = { good = good, accepts = accepts } end

-- What values have to be --------------------------------------------------------------------------

local function one_of(...)
    local known = { ... }
    return function(v)
        for i = 1, #known do
            if rawequal(v, known[i]) then return true end
        end
        return false
    end
end
local function of(types)
    return function(v) return (types .. " "):find(type(v) .. " ", 1, true) ~= nil end
end
local function finite(v) return type(v) == "number" and v - v == 0 end
-- A number, or a text that reads as one, as in Lua's own functions.
local function numeric(v) return finite(v) or type(v) == "string" and v:find("^[%d.]+$") ~= nil end
local function whole(least, most)
    return function(v) return finite(v) and v >= least and v <= most and v % 1 == 0 end
end
local function either(a, b)
    return function(v) return a(v) or b(v) end
end
-- A string of so many bytes in which the pattern is not found.
local function text(least, most, pattern)
    return function(v)
        local fits = type(v) == "string" and #v >= least and #v <= most
        return fits and not (pattern and v:find(pattern))
    end
end
local function never() return false end
local function always() return true end
local function is_buffer(v) return getmetatable(v) == getmetatable(buffer.new()) end
local function is_int64(v) return type(v) == "cdata" and tostring(v):find("^%-?%d+U?LL$") ~= nil end

-- A number of another type, as such.
local function is_number_of(accepts)
    return function(v)
        return accepts(is_int64(v) and tonumber(v) or numeric(v) and tonumber(v) or v)
    end
end

local function ignore() end
local ANY = whole(-math.huge, math.huge)

-- Numbers, texts, functions -----------------------------------------------------------------------

define("any", 1, always)
define("on", true, of("boolean"))
define("callback", ignore, of("function"))
define("callback_or_nil", ignore, of("function nil"))
define("string", "x", of("string"))
define("bytes", "x", either(of("string"), is_buffer))
define("data", "x", either(of("string number"), is_buffer))
define("number", 1, of("number"))
define("seconds", 1e6, numeric)
define("seconds_or_callback", 1e6, either(numeric, of("function")))
define("how", false, of("boolean function nil"))
-- In tables of options 0 is no limit.
define("limit", 1, function(v) return finite(v) and v >= 0 and v < 1e9 end)
define(
    "plain",
    {},
    function(v) return type(v) == "nil" or type(v) == "table" and not getmetatable(v) end
)
define("source", "127.0.0.1", function(v) return type(v) == "string" and #v <= 253 end)

-- "least..most"
setmetatable(kinds, {
    __index = function(_, name)
        local least, most = tostring(name):match("^(%-?[%d^]+)%.%.([%d^]+)$")
        if not least then error("no kind is called " .. tostring(name), 2) end
        local function number(digits)
            local base, power = digits:match("^(%-?%d+)^(%d+)$")
            return base and base ^ power or tonumber(digits)
        end
        least, most = number(least), number(most)
        return { good = most < 1 and most or 1, accepts = whole(least, most) }
    end,
})

-- Contexts ----------------------------------------------------------------------------------------

context.register("known")
local GONE = 2 ^ 40
local function is_sendable(v)
    if type(v) == "cdata" then return is_int64(v) end
    if type(v) == "userdata" then return is_buffer(v) and v:valid() end
    return not of("function thread")(v)
end
local name = text(1, 253, "^%s*%-?[%d.]+%s*$")
define("value", 1, is_sendable)
define("period", 5, function(v) return type(v) == "number" and v > 0 end)
define("handle", GONE, either(ANY, one_of("7")))
define("handle_or_name", GONE, either(ANY, text(0, math.huge, "^0.5$")))
define("other", GONE, either(either(whole(2, math.huge), one_of(-1)), text(0, math.huge, "^0.5$")))
define("known_other", GONE, either(either(whole(2, math.huge), one_of(-1)), one_of("7")))
define("own_name", "x", either(ANY, text(1, 253, "^0.5$")))
define("sender", GONE, either(whole(0, 2 ^ 53 - 1), one_of("7")))
define("name", "known", name)
define("topic", "a.b", text(1, 253, "[%s%c]"))
define("signal", "HUP", one_of("HUP", "USR1", "USR2", "INT", "TERM"))
define("timer", 1, either(ANY, one_of("7")))
define("code", 1, of("number"))
define("session", 1, ANY)
define("script", "/nowhere/x.lua", of("string"))

-- Sockets -----------------------------------------------------------------------------------------

local _, listener = tcp.listen("127.0.0.1", 0)
local port = listener:local_port()
local _, stream = tcp.connect("127.0.0.1", port)
local _, datagram = udp.open("127.0.0.1", 0)
define("listener", listener, one_of(listener))
local _, closed_listener = tcp.listen("127.0.0.1", 0)
closed_listener:close()
local _, closed = tcp.connect("127.0.0.1", port)
closed:close()
local _, closed_datagram = udp.open("127.0.0.1", 0)
closed_datagram:close()
kinds.closed, kinds.closed_listener, kinds.closed_datagram =
    closed, closed_listener, closed_datagram
define("stream", stream, one_of(stream))
-- What a closed one may be asked, too, and both kinds.
define("ended", stream, one_of(stream, closed))
define("ended_datagram", datagram, one_of(datagram, closed_datagram))
define("socket", stream, one_of(stream, closed, listener, closed_listener))
-- For what closes it, or fixes what it reads.
kinds.spare = {
    make = function() return select(2, tcp.connect("127.0.0.1", port)) end,
    accepts = one_of(stream, closed),
}
kinds.spare_datagram = {
    make = function() return select(2, udp.open("127.0.0.1", 0)) end,
    accepts = one_of(datagram, closed_datagram),
}
define("datagram", datagram, one_of(datagram))
define("stream_or_fd", stream, either(ANY, one_of(stream)))
define("datagram_or_fd", datagram, either(ANY, one_of(datagram)))
define("fd", 1, ANY)
define("udp_fd", 1, whole(0, math.huge))
define("host", "127.0.0.1", of("string"))
define("served", "127.0.0.1", either(of("string"), one_of(listener, closed_listener)))
-- Without a port, a callback may stand there.
define("where", "127.0.0.1", of("string function nil"))
define("group", "239.0.0.1", never)
define("interface", "127.0.0.1", either(of("string"), whole(0, 2 ^ 31)))
define("ttl", 1, either(whole(1, 255), one_of("7")))
define("port", port, is_number_of(whole(0, 65535)))
define("backlog", 10, is_number_of(either(whole(0, 2 ^ 31 - 1), of("boolean"))))
define("backlog_or_callback", 10, either(kinds.backlog.accepts, of("function")))
define("path", "/nowhere/at/all", text(1, 107, "%z"))
define("delimiter", "x", text(1, 1024))
define("write_limit", 2 ^ 30, either(whole(0, math.huge), one_of(math.huge)))
define("keepalive", 10, either(whole(1, 32767), one_of(false)))

-- Buffers and packets -----------------------------------------------------------------------------

-- Made anew for each call: some take bytes away.
local function is_valid(v) return is_buffer(v) and v:valid() end
-- Made anew for each call: some take bytes away. Those that are not empty take all accessors.
local function make_buffer() return buffer.new(("\1"):rep(16)) end
local function of_buffers(accepts) return { make = make_buffer, accepts = accepts } end
kinds.buffer, kinds.any_buffer = of_buffers(is_valid), of_buffers(is_buffer)
kinds.full_buffer = of_buffers(function(v) return is_buffer(v) and #v >= 8 end)
-- Numbers of 64 bits are as good as others.
local function number_of(least, most)
    return either(
        whole(least, most),
        function(v) return is_int64(v) and v >= least and v <= most end
    )
end
define("at", 0, number_of(0, 8))
define("offset", 0, is_number_of(whole(0, 16)))
define("part", 1, either(whole(0, 2 ^ 31 - 1), one_of("7")))
define("amount", 1, either(either(whole(0, math.huge), one_of(math.huge)), one_of("7")))
define("most", 1, either(function(v) return type(v) == "number" and v >= 0 end, one_of("7")))
define("count", 1, number_of(0, 2 ^ 31 - 1))
define("few", 1, number_of(0, 9))
define("byte", 1, number_of(0, 255))
define("new", 9, either(either(of("string"), is_buffer), whole(0, 2 ^ 31 - 1)))
define("format", "i4", either(of("string number"), is_buffer))
define("varint", 1, number_of(0, 2 ^ 53))
define("zigzag", 1, number_of(-2 ^ 53, 2 ^ 53))
define("text", "x", of("string number"))
define("init", 1, either(whole(0, 2 ^ 31 - 1), one_of("7")))
for number, limits in pairs(require("support.checks").LIMITS) do
    local least, most = tonumber(limits[1]), tonumber(limits[2])
    if number:sub(1, 1) == "f" then
        define(number, 1, of("number"))
    elseif number:find("64") then
        define(number, 1, either(whole(least, most), is_int64))
    else
        define(number, 1, number_of(least, most))
    end
end

-- Tables of options -------------------------------------------------------------------------------

-- Fields that are needed have "!" in front of their kind.
local function is_empty(v) return type(v) == "table" and not next(v) and not getmetatable(v) end
local function options(label, fields, accepts)
    for _, kind in pairs(fields) do
        if kind:sub(1, 1) == "!" then accepts = accepts or never end
    end
    kinds[label] = { fields = fields, accepts = accepts or is_empty }
end
-- Tables with any text as a key; "of" is the kind of their values.
local function map(label, of_kind)
    kinds[label] = {
        map = of_kind,
        accepts = function(v)
            return is_empty(v)
                or type(v) == "table"
                    and kinds[of_kind].accepts(v.edian)
                    and type(v.edian) ~= "nil"
        end,
    }
end
local function list(label, of_kind) kinds[label] = { list = of_kind, accepts = is_empty } end

define("endian", "B", one_of("B", "L"))
define("head_bytes", 2, either(whole(0, 8), one_of("varint")))
define("head_bytes_alone", 2, one_of(0, 1, 2, 4, "varint"))
define("boundary", "\n", either(text(1, 16), one_of(false)))
local frames = {
    read_head_bytes = "head_bytes",
    read_head_endian = "endian",
    read_head_max = "0..65535",
    read_head_adjust = "-9..9",
    read_head_offset = "0..65535",
    read_delimiter = "boundary",
    write_head_bytes = "head_bytes",
    write_head_endian = "endian",
    write_head_max = "0..65535",
    write_head_adjust = "-9..9",
    write_head_offset = "0..65535",
}
options("frames", frames)

define("status", 0, either(whole(0, 255), of("boolean nil")))
define("label", "x", text(1, 253))
define("withheld", "io", one_of("ffi", "io", "os", "loadlib", "network", "create"))
list("deny", "withheld")
define("cpu", 1, function(v) return finite(v) and v > 0 end)
options("create_options", {
    file = "!script",
    name = "label",
    mailbox = "1..2^32",
    queries = "1..2^32",
    memory = "1..2^53",
    turn_limit = "cpu",
    worker = "0..1",
    deny = "deny",
}, of("string"))
options("register_options", { shared = "on" })

define("restart", "permanent", one_of("permanent", "transient", "temporary"))
define("strategy", "one_for_one", one_of("one_for_one", "one_for_all", "rest_for_one"))
define("intensity", 3, either(whole(0, math.huge), one_of(math.huge)))
options("child", { [1] = "!script", restart = "restart", n = "1..1000" })
options("supervised", {
    [1] = "!child",
    strategy = "strategy",
    intensity = "intensity",
    period = "period",
    on_exit = "callback",
    on_finish = "callback",
})
options("field", { [1] = "!field_name", [2] = "!type", [3] = "1..1000" })
options("layout", { [1] = "!field", endian = "endian" })
define("field_name", "x", text(1, math.huge))
define("type", "u8", one_of("u8"))

define("empty", "array", one_of("array", "object"))
define("invalid_utf8", "raise", one_of("raise", "replace"))
define("binary", "string", one_of("string", "buffer"))
define("no", false, of("boolean"))
local depth, size = "1..2000", "1..2^53"
options("json_encode", {
    max_depth = depth,
    max_bytes = size,
    sort_keys = "on",
    empty = "empty",
    invalid_utf8 = "invalid_utf8",
})
options("json_decode", {
    max_depth = depth,
    max_bytes = size,
    null = "any",
    drop_nulls = "on",
    int64 = "on",
    mark_arrays = "on",
})
options(
    "msgpack_encode",
    { max_depth = depth, max_bytes = size, sort_keys = "on", empty = "empty" }
)
options("msgpack_decode", {
    max_depth = depth,
    max_bytes = size,
    null = "any",
    drop_nulls = "on",
    int64 = "on",
    binary = "binary",
    from = "1..1",
})

if tls then
    local cert, key, ca = certificates.cert, certificates.key, certificates.ca
    -- A text that is none is a path.
    local path = text(1, math.huge, "%z")
    define("cert", cert, path)
    define("key", key, path)
    define("ca", ca, path)
    define("version", "1.2", one_of("1.2", "1.3"))
    list("alpn", "protocol")
    define("protocol", "h2", text(1, 255))
    options("identity", { cert = "!cert", key = "key" })
    map("sni", "identity")
    options("tls_client", { ca = "ca", verify = "on", alpn = "alpn", min_version = "version" })
    options("tls_client_shown", { cert = "cert", key = "key" })
    options("tls_server", {
        cert = "!cert",
        key = "key",
        sni = "sni",
        client_ca = "ca",
        alpn = "alpn",
        min_version = "version",
    })
    options("tls_server_asking", {
        cert = "!cert",
        key = "key",
        client_ca = "ca",
        client_optional = "on",
    })
    define("client_config", select(2, tls.client({ ca = ca })), never)
    define("server_config", select(2, tls.server({ cert = cert, key = key })), never)
    define("config", kinds.client_config.good, never)
end

if http then
    define("handler", ignore, of("function"))
    define("header_name", "x", text(1, math.huge, "[^%w!#$%%&'*+.^_`|~-]"))
    define("url", "http://127.0.0.1:1/", never)
    define("method", "PUT", text(1, math.huge, "[^%w!#$%%&'*+.^_`|~-]"))
    define("header", "b", function(v)
        if type(v) ~= "table" then return of("number")(v) or text(0, math.huge, "[%z\n\r]")(v) end
        for _, one in pairs(v) do
            if type(one) == "table" then return false end
        end
        return not getmetatable(v) and not v.edian and #v ~= 3
    end)
    map("headers", "header")
    define("body", "x", either(of("string number function"), is_buffer))
    define("said", nil, of("nil"))
    define("proxy", false, one_of(false))
    local request = {
        method = "method",
        headers = "headers",
        body = "body",
        timeout = "seconds",
        redirect = "on",
        max_redirects = "0..2^53",
        proxy = "proxy",
    }
    options("get_options", request)
    local post = { method = "said", body = "said" }
    options("post_options", post)
    for field, kind in pairs(request) do
        post[field] = post[field] or kind
    end
    options("request", request)
    kinds.request.fields = { url = "!url" }
    for field, kind in pairs(request) do
        kinds.request.fields[field] = kind
    end
    options("serve_options", {
        http2 = "on",
        reuse_port = "on",
        head_bytes = "1024..1048576",
        headers = "1..65535",
        body_bytes = "0..2^53",
        head_timeout = "limit",
        idle_timeout = "limit",
        body_rate = "0..2^53",
    })
end

if websocket then
    define("names", "a", either(is_empty, text(1, math.huge, "[^%w!#$%%&'*+.^_`|~-]")))
    define("pause", 1, function(v) return finite(v) and v >= 0 end)
    define("form", "text", one_of("text", "binary"))
    local both = {
        protocols = "names",
        max_message = "0..2^31",
        deflate = "on",
        ping_interval = "pause",
        idle_timeout = "pause",
        kind = "form",
    }
    options("accept_options", both)
    options("connect_options", both)
    kinds.connect_options.fields = { headers = "headers", timeout = "seconds" }
    for field, kind in pairs(both) do
        kinds.connect_options.fields[field] = kind
    end
    define("close_code", 1000, either(whole(3000, 4999), one_of(1000)))
    define("reason", "x", text(0, 123, "[\128-\255]"))
    define("ws_url", "ws://127.0.0.1:1/", never)
end

return kinds
