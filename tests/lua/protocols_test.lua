-- The framing of protocols that others have specified, with bytes written from their
-- specifications: read whole, split anywhere, one byte at a time; and written, where what is sent
-- must be the same.

local sockets = require("support.sockets")
local tap = require("support.tap")
local is = tap.is
local pair = sockets.pair

local function text(good, data) return good and data:tostring() or data end

-- Both directions of the same options.
local function both(read)
    local options = {}
    for name, value in pairs(read) do
        options["read_" .. name] = value
        if name ~= "delimiter" then options["write_" .. name] = value end
    end
    return options
end

local PROTOCOLS = {
    {
        -- Frontend/backend protocol 3.0: AuthenticationOk, ParameterStatus, BackendKeyData,
        -- ReadyForQuery, a row of SELECT 1, CommandComplete, Terminate.
        name = "PostgreSQL",
        options = { head_bytes = 4, head_endian = "B", head_adjust = -4, head_offset = 1 },
        frames = {
            "R\0\0\0\8\0\0\0\0",
            "S\0\0\0\25client_encoding\0UTF8\0",
            "K\0\0\0\12\0\0\4\210\18\52\86\120",
            "Z\0\0\0\5I",
            "T\0\0\0\33\0\1?column?\0\0\0\0\0\0\0\0\0\0\23\0\4\255\255\255\255\0\0",
            "D\0\0\0\11\0\1\0\0\0\1" .. "1",
            "C\0\0\0\13SELECT 1\0",
            "X\0\0\0\4",
        },
    },
    {
        -- Packets of the client/server protocol: 3 bytes of length, sequence number, payload. The
        -- length does not count the number. Here the frame is the whole packet.
        name = "MySQL",
        options = { head_bytes = 3, head_adjust = 1, head_offset = 0 },
        frames = {
            "\0\10" .. "8.0.36\0\8\0\0\0abcdefgh\0\255\247\255\2\0\255\223\21" .. ("\0"):rep(10),
            "\0\14", -- COM_PING
            "\1\0\0\0\2\0\0\0", -- OK
            "\0\3SELECT 1",
            "\1" .. ("r"):rep(70000),
        },
        wire = function(frame)
            local n = #frame - 1
            return string.char(n % 256, math.floor(n / 256) % 256, math.floor(n / 65536)) .. frame
        end,
    },
    {
        -- MQTT 3.1.1: CONNECT, CONNACK, PUBLISH with a long payload, PINGREQ, PINGRESP, DISCONNECT.
        name = "MQTT",
        options = { head_bytes = "varint", head_offset = 1 },
        frames = {
            "\16\16\0\4MQTT\4\2\0\60\0\4test",
            "\32\2\0\0",
            "\48\7\0\3a/b42",
            "\48\128\1\0\3a/b" .. ("x"):rep(123),
            "\48\132\128\1\0\2hi" .. ("y"):rep(16384),
            "\192\0",
            "\208\0",
            "\224\0",
        },
    },
    {
        -- ApiVersions v0 of client "me", and an answer to it.
        name = "Kafka",
        options = { head_bytes = 4, head_endian = "B" },
        frames = {
            "\0\18\0\0\0\0\0\1\0\2me",
            "\0\0\0\1\0\0\0\0\0\1\0\18\0\0\0\3",
            "",
            ("k"):rep(300000),
        },
        wire = function(frame)
            local n = #frame
            local high, low = math.floor(n / 65536), n % 65536
            return string.char(0, high, math.floor(low / 256), low % 256) .. frame
        end,
    },
    {
        -- Messages of which field 1 is 150, or field 2 "testing": the encoding guide's examples.
        name = "protobuf, delimited",
        options = { head_bytes = "varint" },
        frames = { "\8\150\1", "\18\7testing", "", "\18\172\2" .. ("s"):rep(300) },
        wire = function(frame)
            local n = #frame
            if n < 128 then return string.char(n) .. frame end
            return string.char(n % 128 + 128, math.floor(n / 128)) .. frame
        end,
    },
    {
        -- Commands and answers of RESP that are lines.
        name = "Redis, lines",
        options = { delimiter = "\r\n" },
        frames = {
            "PING",
            "+PONG",
            ":1000",
            "-ERR unknown command 'foo'",
            "",
            "$-1",
            "with \r in it",
        },
        wire = function(frame) return frame .. "\r\n" end,
    },
}

local function join(protocol)
    local parts = {}
    for at, frame in ipairs(protocol.frames) do
        parts[at] = protocol.wire and protocol.wire(frame) or frame
    end
    return table.concat(parts)
end

for _, protocol in ipairs(PROTOCOLS) do
    local stream, options = join(protocol), both(protocol.options)

    -- Whether all frames come, whatever `send` does with the stream.
    local function arrives(name, send)
        local server, client = pair()
        server:set_rwopt(options)
        context.run(function()
            send(client)
            client:shutdown()
        end)
        local good = true
        for _, frame in ipairs(protocol.frames) do
            good = good and text(server:read(30)) == frame
        end
        is(good, true, name)
        is(text(server:read(30)), 1, name .. ", then the end")
        is(tcp.stat(server).truncated, 0, name .. ", in no frame")
        server:close()
        client:close()
    end

    tap.test(protocol.name .. ": read", function()
        arrives("whole", function(client) client:write(stream) end)
        local short = stream:sub(1, 400)
        arrives("one byte at a time", function(client)
            for byte in short:gmatch(".") do
                client:write(byte, true)
            end
            client:write(stream:sub(401))
        end)
        for at = 1, math.min(#stream - 1, 60) do
            arrives("split at " .. at, function(client)
                client:write(stream:sub(1, at), true)
                timer.sleep(0)
                client:write(stream:sub(at + 1))
            end)
        end
    end)

    tap.test(protocol.name .. ": cut short", function()
        -- By how much is known for the first frame.
        local first = protocol.wire and protocol.wire(protocol.frames[1]) or protocol.frames[1]
        for _, at in ipairs({ 1, math.floor(#first / 2), #first - 1 }) do
            local server, client = pair()
            server:set_rwopt(options)
            client:write(first:sub(1, at))
            client:close()
            is(text(server:read(30)), 1, "the end after " .. at)
            is(tcp.stat(server).truncated, at, "is in the frame")
            server:close()
        end
        local server, client = pair()
        server:set_rwopt(options)
        client:write(first:sub(1, -2))
        timer.sleep(0)
        client:abort()
        is(text(server:read(30)), 13, "a reset")
        server:close()
    end)

    if options.write_head_bytes then
        tap.test(protocol.name .. ": written", function()
            local server, client = pair()
            client:set_rwopt(options)
            for _, frame in ipairs(protocol.frames) do
                client:write(frame)
            end
            client:shutdown()
            local _, got = server:read_bytes(#stream, 30)
            is(got:tostring() == stream, true, "the same bytes")
            is(text(server:read(30)), 1, "no more")
            server:close()
            client:close()
        end)
    end
end

tap.test("Redis: an array of bulk strings, by lines and lengths", function()
    local server, client = pair()
    client:write("*3\r\n$3\r\nSET\r\n$3\r\nkey\r\n$7\r\na\r\nb\0c\255\r\n")
    local function line() return context.check(server:read_until("\r\n", 1024, 30)):tostring() end
    local parts = {}
    for i = 1, tonumber(line():match("^%*(%d+)$")) do
        local size = tonumber(line():match("^%$(%d+)$"))
        parts[i] = context.check(server:read_bytes(size, 30)):tostring()
        is(line(), "", "the end of a string")
    end
    is(table.concat(parts, " "), "SET key a\r\nb\0c\255", "all of them")
    client:close()
    server:close()
end)

tap.done()
