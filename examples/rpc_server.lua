-- RPC server: takes requests over TCP and lets a pool of contexts, one for each core, answer them.
--
-- Shows: how sockets and contexts meet. The main context only cuts the stream into requests and
-- asks a worker for each; an answer is written when it is there, whatever the order. A request is
-- a table {id =, method =, ...}, its answer {id =, result =} or {id =, error =}, each encoded by
-- string.buffer in a frame with a head of four bytes.
-- Run: node-lua examples/rpc_server.lua [port [host [workers]]]
-- Talk to it: node-lua examples/rpc_client.lua
-- Expected output:
--   rpc server with ... workers on 127.0.0.1:7102

local codec = require("string.buffer")

local port, host, size = ...
port, host = tonumber(port or 7102), host or "127.0.0.1"
size = tonumber(size or context.ncpu())

local here = arg[0]:match("^(.*)/") or "."

local FRAMES = { read_head_bytes = 4, read_head_max = 1048576, write_head_bytes = 4 }
local TIMEOUT = 5

local workers = {}
for i = 1, size do
    workers[i] = context.create(here .. "/rpc_worker.lua")
end

local turn = 0

-- Waits for one answer; runs in a coroutine of its own for each request.
local function serve(sock, request)
    turn = turn % size + 1
    local ok, answer = context.query(workers[turn], request, TIMEOUT)
    if not ok then answer = { error = context.strerror(answer) } end
    answer.id = request.id
    if not sock:is_closed() then sock:write(codec.encode(answer)) end
end

local ok, listener = tcp.listen(host, port)
if not ok then
    error(("cannot listen on %s:%d: %s"):format(host, port, context.strerror(listener)), 0)
end

listener:accept(function(_, sock)
    sock:set_rwopt(FRAMES)
    sock:set_nodelay(true)
    sock:read(function(good, frame)
        local decoded, request
        if good then
            decoded, request = pcall(codec.decode, frame:tostring())
        end
        if decoded and type(request) == "table" then
            serve(sock, request) -- a callback may wait: the next frame gets a callback of its own
        else
            sock:close() -- the end, or a client that does not speak this protocol
        end
    end)
end)

print(
    ("rpc server with %d workers on %s:%d"):format(
        size,
        tcp.local_addr(listener),
        tcp.local_port(listener)
    )
)
