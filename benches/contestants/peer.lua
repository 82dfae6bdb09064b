-- The work of some rows for LuaJIT with lua-luv: `luajit peer.lua ROW ARGUMENTS…`.
local uv = require("luv")
local ffi = require("ffi")

local function say(...)
    io.stdout:write(table.concat({ ... }, " "), "\n")
    io.stdout:flush()
end

local function listen(port, accept)
    local server = uv.new_tcp()
    assert(server:bind("127.0.0.1", port))
    assert(server:listen(16384, function()
        local client = uv.new_tcp()
        server:accept(client)
        client:nodelay(true)
        accept(client)
    end))
    say("ready")
end

local function frame_size(head, text, at)
    local a, b, c, d = text:byte(at, at + head - 1)
    return a + b * 256 + (c or 0) * 65536 + (d or 0) * 16777216
end

local function head_of(head, size)
    local low = string.char(size % 256, math.floor(size / 256) % 256)
    if head == 2 then return low end
    return low .. string.char(math.floor(size / 65536) % 256, math.floor(size / 16777216))
end

-- Calls `use` with each whole frame; keeps pieces of a long one apart until they are enough.
local function decoder(head, use)
    local parts, held, want = {}, 0, head
    return function(chunk)
        parts[#parts + 1] = chunk
        held = held + #chunk
        if held < want then return end
        local text, at = table.concat(parts), 1
        while true do
            want = head
            if #text - at + 1 < head then break end
            local size = frame_size(head, text, at)
            want = head + size
            if #text - at + 1 < want then break end
            use(text:sub(at + head, at + want - 1))
            at = at + want
        end
        text = text:sub(at)
        parts, held = { text }, #text
    end
end

local rows = {}

-- With batch 1 the frames of one read leave in one write, else each in its own.
function rows.echo(port, _, head, batch)
    head, batch = tonumber(head), batch == "1"
    listen(tonumber(port), function(client)
        local out
        local feed = decoder(head, function(body)
            if not batch then return client:write({ head_of(head, #body), body }) end
            out[#out + 1] = head_of(head, #body)
            out[#out + 1] = body
        end)
        client:read_start(function(err, chunk)
            if err or not chunk then return client:close() end
            out = {}
            feed(chunk)
            if out[1] then client:write(out) end
        end)
    end)
    uv.run()
end

function rows.broadcast(port)
    local clients = {}
    local data = head_of(2, 1024) .. ("x"):rep(1024)
    listen(tonumber(port), function(client)
        clients[#clients + 1] = client
        local feed = decoder(2, function(body)
            for _ = 1, tonumber(body) do
                for i = 1, #clients do
                    clients[i]:write(data)
                end
            end
        end)
        client:read_start(function(err, chunk)
            if chunk and not err then feed(chunk) end
        end)
    end)
    uv.run()
end

function rows.idle(port)
    listen(tonumber(port), function(client)
        client:read_start(function() end)
    end)
    uv.run()
end

function rows.timers(count)
    count = tonumber(count)
    local errors = {}
    local function run()
        local random = 1
        for _ = 1, count do
            random = random * 16807 % 2147483647
            local ms = 500 + random % 2500
            local due = uv.hrtime() + ms * 1e6
            local timer = uv.new_timer()
            timer:start(ms, 0, function()
                errors[#errors + 1] = (uv.hrtime() - due) / 1e6
                timer:close()
                if #errors == count then say("end") end
            end)
        end
    end
    say("begin")
    local first = uv.new_timer()
    first:start(50, 0, function()
        first:close()
        uv.update_time()
        run()
    end)
    uv.run()
    local early = 0
    for i, e in ipairs(errors) do
        early = early + (e < 0 and 1 or 0)
        errors[i] = math.abs(e)
    end
    table.sort(errors)
    say("metric error_p50_ms", errors[math.ceil(count / 2)])
    say("metric error_p99_ms", errors[math.ceil(count * 0.99)])
    say("metric early", early)
    ffi.cdef("int usleep(unsigned)")
    ffi.C.usleep(300000)
end

local row = rows[arg[1]] or error("no row " .. tostring(arg[1]))
row(unpack(arg, 2))
