-- An echo server over TLS, and a client that verifies it, in one script.
--
-- Shows: configurations, handshakes on both sides, what is known of the peer, and a certificate
-- that is refused. The certificate, with its key, is in examples/localhost.pem: for trying only.
-- The client trusts who has signed it, examples/localhost_ca.pem, and nobody else.
-- Run: node-lua examples/tls_echo.lua
-- With `serve [port]` it serves until it is ended; ask it by
-- openssl s_client -connect localhost:7443 -CAfile examples/localhost_ca.pem
-- Expected output:
--   server: TLSv1.3, a client asks for localhost
--   client: "CN=localhost" answers: hello
--   client: certificate refused for example.org

local folder = arg[0]:match("^(.*/)") or ""
local check = context.check

local server = check(tls.server({ cert = folder .. "localhost.pem" }))

local function serve(sock)
    local ok, _, text = sock:start_tls(server, nil, 10)
    if not ok then return sock:close(), text end
    local about = sock:tls()
    print(("server: %s, a client asks for %s"):format(about.version, about.server_name))
    sock:read(function(good, data)
        if not good then return sock:close() end
        sock:write(data)
    end)
end

local mode, port = ...
local listener = check(tcp.listen("127.0.0.1", mode == "serve" and (port or 7443) or 0))
listener:accept(function(_, sock) serve(sock) end)
if mode == "serve" then
    print("echoing on port " .. tcp.local_port(listener))
    return
end

local client = check(tls.client({ ca = folder .. "localhost_ca.pem" }))
local sock = check(tcp.connect("127.0.0.1", tcp.local_port(listener)))
check(sock:start_tls(client, "localhost", 10))
sock:write("hello")
local answer = check(sock:read()):tostring()
print(("client: %q answers: %s"):format(sock:tls().peer.subject, answer))
sock:close()

-- A server that is not who it should be.
sock = check(tcp.connect("127.0.0.1", tcp.local_port(listener)))
local _, code = sock:start_tls(client, "example.org", 10)
print("client: " .. context.strerror(code) .. " for example.org")
sock:close()
listener:close()
