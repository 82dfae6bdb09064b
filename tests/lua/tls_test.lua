-- tls: configurations, handshakes, and that everything a plain connection does goes on with TLS.

if not tls then return print("1..0 # built without TLS") end

local certificates = require("support.certificates")
local tap = require("support.tap")
local is, ok, raises = tap.is, tap.ok, tap.raises
local c = certificates

local check = context.check
local server = check(tls.server({ cert = c.cert, key = c.key, alpn = { "echo", "other" } }))
local client = check(tls.client({ ca = c.ca, alpn = { "echo" } }))

-- Two connected sockets: what was accepted, and what has connected.
local function plain_pair()
    local listener = check(tcp.listen("127.0.0.1", 0))
    local near = check(tcp.connect("127.0.0.1", tcp.local_port(listener)))
    local far = check(listener:accept())
    listener:close()
    return far, near
end

-- Runs the server's side of a handshake beside; returns a function that waits for its results.
local function start_server(far, config, ...)
    local results
    local args, n = { ... }, select("#", ...)
    context.run(function() results = { far:start_tls(config, unpack(args, 1, n)) } end)
    return function()
        while not results do
            timer.sleep(0.001)
        end
        return unpack(results, 1, 3)
    end
end

local function pair(server_config, client_config, name)
    local far, near = plain_pair()
    local wait = start_server(far, server_config or server)
    check(near:start_tls(client_config or client, name or "localhost", 20))
    check(wait())
    return far, near
end

local function read_all(sock, size)
    local parts, n = {}, 0
    while n < size do
        local _, data = check(true, sock:read())
        if type(data) == "number" then return table.concat(parts), data end
        parts[#parts + 1] = data:tostring()
        n = n + #data
    end
    return table.concat(parts)
end

tap.test("a handshake", function()
    local far, near = plain_pair()
    is(near:tls(), nil, "has not happened")
    local wait = start_server(far, server, 20)
    local good, sock = near:start_tls(client, "localhost", 20)
    is(good, true, "succeeds")
    ok(sock == near, "and gives the socket")
    local ours, theirs = wait()
    is(ours, true, "on both sides")
    ok(theirs == far, "with its socket too")
    local mine, yours = near:tls(), far:tls()
    is(mine.version, "TLSv1.3", "speaks 1.3")
    is(mine.cipher, yours.cipher, "with one cipher")
    ok(mine.cipher:find("^TLS_"), "that is named as in the standard", mine.cipher)
    is(mine.alpn, "echo", "agrees on a protocol")
    is(yours.alpn, "echo", "on both sides")
    is(yours.server_name, "localhost", "tells the server whom the client wants")
    is(yours.peer, nil, "without a certificate of the client")
    local peer = mine.peer
    is(peer.subject, "CN=localhost", "shows the subject")
    is(peer.issuer, "CN=Test CA", "the issuer")
    is(table.concat(peer.names, " "), "localhost 127.0.0.1", "the names")
    ok(peer.not_before < os.time() and peer.not_after > os.time(), "the dates")
    is(#peer.sha256, 64, "the digest")
    is(peer.pem, c.cert:gsub("%s+$", "") .. "\n", "and all of it")
    far:close()
    near:close()
    is(near:tls(), nil, "is nothing of a closed socket")
end)

tap.test("bytes", function()
    local far, near = pair()
    near:write("hello")
    is(select(2, far:read()):tostring(), "hello", "arrive")
    local big = ("0123456789abcdef"):rep(200000)
    context.run(function() far:write(big, true) end)
    ok(read_all(near, #big) == big, "many of them too")
    near:close()
    local good, code = far:read()
    is(good, false, "end")
    is(code, 1, "as they should")
    far:close()
end)

tap.test("frames, options and figures", function()
    local far, near = plain_pair()
    local framed = {
        read_head_bytes = 2,
        read_head_endian = "B",
        write_head_bytes = 2,
        write_head_endian = "B",
    }
    far:set_rwopt(framed)
    near:set_rwopt(framed)
    near:write("in the clear")
    is(select(2, far:read()):tostring(), "in the clear", "before")
    local wait = start_server(far, server)
    check(near:start_tls(client, "localhost", 20))
    check(wait())
    for i = 1, 50 do
        near:write(("x"):rep(i * 100))
    end
    local lengths = 0
    for _ = 1, 50 do
        lengths = lengths + #check(far:read())
    end
    is(lengths, 50 * 51 / 2 * 100, "keep their bounds")
    local good, code = near:write("told", true)
    ok(good == true and code == 0, "writes that wait are told")
    is(near:stat().write_queue_bytes, 0, "nothing is left in the queue")
    is(near:get_rwopt().read_head_bytes, 2, "options are what they were")
    check(far:read())
    local got
    near:write("by callback", function(...) got = { ... } end)
    check(far:read())
    while not got do
        timer.sleep(0.001)
    end
    is(got[1], true, "callbacks as well")
    good, code = far:read(0.01)
    ok(good == false and code == 208, "a read has its time")
    far:close()
    near:close()
end)

tap.test("STARTTLS", function()
    local far, near = plain_pair()
    context.run(function()
        is(check(far:read()):tostring(), "STARTTLS\r\n", "is asked for")
        far:write("220 go on\r\n")
        check(far:start_tls(server))
        far:write("inside")
    end)
    near:write("STARTTLS\r\n")
    is(check(near:read()):tostring(), "220 go on\r\n", "is answered in the clear")
    check(near:start_tls(client, "localhost", 20))
    is(check(near:read()):tostring(), "inside", "and goes on")
    far:close()
    near:close()
end)

tap.test("what waits while the handshake goes on", function()
    local far, near = plain_pair()
    local got
    near:read(function(good, data) got = got or good and data:tostring() end)
    far:write("first")
    while not got do
        timer.sleep(0.001)
    end
    is(got, "first", "a callback has read")
    got = nil
    local wait = start_server(far, server)
    local done
    context.run(function() done = { near:start_tls(client, "localhost", 20) } end)
    timer.sleep(0)
    near:write("early ")
    near:write("bird")
    check(wait())
    is(read_all(far, 10), "early bird", "writes leave afterwards")
    far:write("second")
    while not got do
        timer.sleep(0.001)
    end
    is(got, "second", "the callback reads on")
    is(done[1], true, "and the handshake was one")
    far:close()
    near:close()
end)

tap.test("names", function()
    local named = check(tls.server({
        cert = c.cert,
        key = c.key,
        sni = { ["other.example"] = { c.other_cert, c.other_key } },
    }))
    local far, near = pair(named, client, "other.example")
    is(near:tls().peer.subject, "CN=other.example", "choose a certificate")
    far:close()
    near:close()
    far, near = pair(named, client, "localhost")
    is(near:tls().peer.subject, "CN=localhost", "others get the usual one")
    far:close()
    near:close()
    far, near = plain_pair()
    local wait = start_server(far, server)
    local good, code, text = near:start_tls(client, "wrong.example", 20)
    is(good, false, "that are not in it are refused")
    is(code, 221, "with a code of its own")
    ok(text:find("CN=localhost", 1, true), "which names the certificate", text)
    ok(text:find("not for 'wrong.example'", 1, true), "and what is wrong", text)
    good, code, text = wait()
    ok(good == false and code == 221, "the server learns of it")
    ok(text:find("refuses our certificate", 1, true), "and why", text)
    good, code = near:read()
    ok(good == false and code == 221, "reads fail the same way")
    good, code = near:write("x", true)
    ok(good == false and code == 221, "and writes")
    ok(near:tls().failure:find("wrong.example", 1, true), "the reason is kept")
    far:close()
    near:close()
    far, near = plain_pair()
    wait = start_server(far, server)
    good = near:start_tls(client, 20)
    is(good, true, "without one the address is verified")
    check(wait())
    far:close()
    near:close()
    far, near = pair(named, check(tls.client({ verify = false })), "nobody.example")
    is(near:tls().version, "TLSv1.3", "do not matter if nothing is verified")
    far:close()
    near:close()
end)

tap.test("certificates of clients", function()
    local mutual = check(tls.server({ cert = c.cert, key = c.key, client_ca = c.ca }))
    local alice = check(tls.client({ ca = c.ca, cert = c.client_cert, key = c.client_key }))
    local far, near = pair(mutual, alice)
    is(far:tls().peer.subject, "CN=alice", "are seen")
    far:close()
    near:close()
    far, near = plain_pair()
    local wait = start_server(far, mutual)
    near:start_tls(client, "localhost", 20)
    local good, code, text = wait()
    ok(good == false and code == 221, "are wanted", tostring(code))
    ok(text:find("client_ca", 1, true), "and the server says so", text)
    good, code = near:read()
    ok(good == false and code == 221, "the client learns of it", tostring(code))
    ok(near:tls().failure:find("wants a certificate", 1, true), "and why")
    far:close()
    near:close()
    local optional = { cert = c.cert, key = c.key, client_ca = c.ca, client_optional = true }
    far, near = pair(check(tls.server(optional)), client)
    is(far:tls().peer, nil, "may be missing if they are optional")
    far:close()
    near:close()
end)

tap.test("versions and protocols", function()
    local new = check(tls.server({ cert = c.cert, key = c.key, min_version = "1.3" }))
    local far, near = pair(new)
    is(near:tls().version, "TLSv1.3", "the least is spoken")
    is(near:tls().alpn, nil, "a server without protocols chooses none")
    far:close()
    near:close()
    far, near = plain_pair()
    local wait = start_server(far, server)
    local strange = check(tls.client({ ca = c.ca, alpn = { "strange" } }))
    local good, code, text = near:start_tls(strange, "localhost", 20)
    ok(good == false and code == 220, "no common protocol is a failure")
    ok(text:find("alpn", 1, true), "that names the option", text)
    good, code, text = wait()
    ok(good == false and code == 220 and text:find("alpn", 1, true), "on both sides", text)
    far:close()
    near:close()
end)

tap.test("time", function()
    local far, near = plain_pair()
    local good, code = near:start_tls(client, "localhost", 0.01)
    ok(good == false and code == 208, "is over")
    good, code = near:read()
    ok(good == false and code == 220, "and nothing can be read")
    good, code = near:write("x", true)
    ok(good == false and code == 220, "or written")
    far:close()
    near:close()
    far, near = plain_pair()
    good, code = near:start_tls(client, "localhost", -1)
    ok(good == false and code == 208, "a deadline that has passed")
    is(near:tls(), nil, "begins nothing")
    far:close()
    near:close()
end)

tap.test("closing", function()
    for _, ending in ipairs({ "close", "abort" }) do
        local far, near = plain_pair()
        local wait = start_server(far, server)
        timer.sleep(0.001)
        tcp[ending](far)
        local good, code = wait()
        ok(good == false and code == 203, ending .. " ends the handshake that goes on")
        good, code = near:start_tls(client, "localhost", 20)
        ok(good == false and (code == 220 or code == 13), "and the peer's", tostring(code))
        near:close()
        raises("closed sockets have none", "closed", near.start_tls, near, client, "localhost")
    end
end)

tap.test("other contexts", function()
    local far, near = pair()
    far:set_wshared(true)
    local fd = tcp.fd(far)
    local folder = arg[0]:match("^(.*/)") or ""
    context.send(context.create(folder .. "support/write_by_number.lua"), fd)
    local text = read_all(near, 300)
    ok(text:find("^001002003") and text:find("099100$"), "write by number, in order", text)
    far:close()
    near:close()
end)

tap.test("configurations", function()
    is(tostring(client):find("^tls client configuration"), 1, "have a text")
    is(tostring(server):find("^tls server configuration"), 1, "of each kind")
    is(server:reload(), true, "are loaded again")
    local me = context.self()
    context.send(me, { client, { server } })
    local _, got = context.recv(me)
    local far, near = pair(got[2][1], got[1])
    near:write("x")
    is(check(far:read()):tostring(), "x", "travel in messages")
    far:close()
    near:close()
    context.send(me, client)
    _, got = context.recv(me)
    ok(tostring(got):find("^tls client"), "alone, too")
    local mark = buffer.new("a configuration of TLS.\n")
    context.send(me, { mark })
    _, got = context.recv(me)
    is(got[1]:tostring(), mark:tostring(), "nothing else is one")
end)

tap.test("what cannot be read", function()
    local function fails(code, part, f, options)
        local good, why, text = f(options)
        is(good, false, part .. ": fails")
        is(why, code, "with its code")
        ok(tostring(text):find(part, 1, true), "and says", tostring(text))
    end
    fails(34, "ca: '/no/such.pem': no such file", tls.client, { ca = "/no/such.pem" })
    fails(221, "no certificate in it", tls.client, { ca = c.key })
    fails(221, "no private key in it", tls.server, { cert = c.cert, key = c.other_cert })
    fails(221, "does not belong to it", tls.server, { cert = c.cert, key = c.other_key })
    local broken = c.ca .. "\n-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
    fails(221, "certificate 2 is not one", tls.client, { ca = broken })
    fails(221, ", line ", tls.client, { ca = broken })
    local cut = "-----BEGIN CERTIFICATE-----\nAAAA\n"
    fails(221, "line 1", tls.client, { ca = cut })
    local locked =
        "-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n"
    fails(221, "is encrypted", tls.server, { cert = c.cert, key = locked })
    local good, code, text = pcall(check, tls.client({ ca = "/no/such.pem" }))
    ok(not good and tostring(code):find("/no/such.pem", 1, true), "check raises it", tostring(text))
end)

tap.test("the end of the stream", function()
    local far, near = pair()
    near:write("a question")
    is(near:shutdown(), true, "is sent once")
    is(near:shutdown(), false, "and not again")
    local good, code = near:write("more", true)
    is(good, false, "nothing is written behind it")
    is(code, 36, "broken pipe")
    is(read_all(far, 10), "a question", "what was written before arrives")
    good, code = far:read(20)
    is(good, false, "the end is told")
    is(code, 1, "as what it is")
    good = far:write(("y"):rep(1000000), true)
    is(good, true, "the other side may still write")
    far:shutdown()
    local text
    text, code = read_all(near, 2000000)
    is(#text, 1000000, "and is read to its end")
    is(code, 1, "which is told too")
    far:close()
    near:close()
end)

tap.test("the end of the stream during a handshake", function()
    for _, part in ipairs({ "", "early" }) do
        local far, near = plain_pair()
        local wait = start_server(near, client, "localhost")
        -- It waits for an answer.
        timer.sleep(0)
        if #part > 0 then near:write(part) end
        is(near:shutdown(), true, "is noted")
        check(far:start_tls(server, 20))
        is(wait(), true, "the handshake goes on")
        local text, code = read_all(far, 10)
        is(text, part, "what was written arrives")
        is(code, 1, "then the end")
        far:write("an answer")
        far:close()
        text, code = read_all(near, 100)
        is(text, "an answer", "and the other way")
        is(code, 1, "to its end")
        near:close()
    end
end)

tap.test("wrong arguments", function()
    local function wrong(part, f, ...) raises(part, part, f, ...) end
    wrong("table of options expected, got nil", tls.client)
    wrong("table of options expected, got number 5", tls.client, 5)
    wrong('no option named string "cafile"; there are alpn, ca', tls.client, { cafile = "x" })
    wrong('no option named string "ca"; there are alpn, cert', tls.server, { ca = "x" })
    wrong("'ca' of 'client' (path of a PEM file", tls.client, { ca = 5 })
    wrong("'ca' of 'client' (path of a PEM file", tls.client, { ca = "" })
    wrong("without a zero byte", tls.client, { ca = "a\0b" })
    wrong("'cert' of 'client'", tls.client, { key = c.key })
    wrong('boolean expected, got string "no"', tls.client, { verify = "no" })
    wrong('"1.2" or "1.3" expected, got string "1.1"', tls.client, { min_version = "1.1" })
    wrong("list of protocol names expected", tls.client, { alpn = "h2" })
    wrong("'alpn[1]' of 'client' (name of 1 to 255 bytes", tls.client, { alpn = { "" } })
    wrong('got a table with key string "x"', tls.client, { alpn = { x = "h2" } })
    wrong('got a table with key string "x"', tls.client, { alpn = { "h2", x = true } })
    wrong("'alpn[2]' of 'client'", tls.client, { alpn = { "h2", [3] = "a" } })
    wrong("no certificate: 'cert' and 'key' expected", tls.server, {})
    wrong("of no use without 'client_ca'", tls.server, { cert = c.cert, client_optional = true })
    wrong("host names as keys", tls.server, { sni = { [5] = {} } })
    for _, name in ipairs({ "", "*", "a b", "*.", "a..b", "*.*.b", ("x"):rep(64) .. ".b" }) do
        wrong("host names as keys", tls.server, { sni = { [name] = {} } })
    end
    wrong("sni['a']", tls.server, { sni = { a = 5 } })
    wrong("sni['a'].cert", tls.server, { sni = { a = {} } })
    local three = { c.cert, c.key, "x" }
    wrong("'sni['a']' of 'server' (no option named number 3", tls.server, { sni = { a = three } })
    local named = { cert = c.cert, key = c.key, cafile = "x" }
    wrong('named string "cafile"; there are cert, key', tls.server, { sni = { a = named } })
    local far, near = plain_pair()
    wrong("TLS configuration (tls.client, tls.server) expected, got nil", near.start_tls, near)
    wrong("got table", near.start_tls, near, {})
    wrong("host name or IP address to verify", near.start_tls, near, client, "not a name")
    wrong("clients name servers", near.start_tls, near, server, "localhost")
    wrong('number of seconds expected, got string "x"', near.start_tls, near, client, "a", "x")
    wrong("finite number", near.start_tls, near, client, "a", 0 / 0)
    wrong("no more arguments", near.start_tls, near, client, "a", 1, 2)
    wrong("tcp socket expected", tcp.start_tls, 5, client)
    wrong("tcp socket expected", tcp.tls, nil)
    wrong("TLS configuration", server.reload, 5)
    far:close()
    near:close()
    far, near = pair()
    wrong("has TLS already", near.start_tls, near, client, "localhost")
    far:close()
    near:close()
end)

tap.done()
