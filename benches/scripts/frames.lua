-- Frames of every kind, through one connection of one context: CPU time to write and read one.
--
--     node-lua --workers 2 benches/scripts/frames.lua [SECONDS [BYTES]]

local seconds, bytes = ...
seconds, bytes = tonumber(seconds) or 1, tonumber(bytes) or 64
local ROUNDS, BATCH = 5, 200
local check, clock = context.check, os.clock
local text = ("x"):rep(bytes)

-- Options for both ways, and what is written.
local KINDS = {
    { "2 bytes (the usual)", { head_bytes = 2 } },
    { "4 bytes, big-endian", { head_bytes = 4, head_endian = "B" } },
    { "3 bytes", { head_bytes = 3, head_endian = "L" } },
    { "4 bytes that count themselves", { head_bytes = 4, head_adjust = -4 } },
    { "varint", { head_bytes = "varint" } },
    { "offset 1, 4 bytes", { head_bytes = 4, head_offset = 1 }, "T\0\0\0\0" .. text },
    { "offset 1, varint", { head_bytes = "varint", head_offset = 1 }, "T\0" .. text },
    { "delimiter of 2 bytes", "\r\n", text .. "\r\n" },
}

local function run(options, packet)
    local listener = check(tcp.listen("127.0.0.1", 0))
    local near = check(tcp.connect("127.0.0.1", listener:local_port()))
    local far = check(listener:accept())
    listener:close()
    if type(options) == "string" then
        far:set_rwopt({ read_delimiter = options })
    else
        local reading, writing = {}, {}
        for name, value in pairs(options) do
            reading["read_" .. name], writing["write_" .. name] = value, value
        end
        far:set_rwopt(reading)
        near:set_rwopt(writing)
    end
    local count, start = 0, clock()
    repeat
        for _ = 1, BATCH do
            near:write(packet)
        end
        for _ = 1, BATCH do
            check(far:read())
        end
        count = count + BATCH
    until clock() - start >= seconds / ROUNDS
    local spent = clock() - start
    near:close()
    far:close()
    return spent / count
end

local best = {}
for _ = 1, ROUNDS do
    for i, kind in ipairs(KINDS) do
        collectgarbage()
        best[i] = math.min(best[i] or math.huge, run(kind[2], kind[3] or text))
    end
end
for i, kind in ipairs(KINDS) do
    print(("%-32s %7.0f ns  x %.2f"):format(kind[1], best[i] * 1e9, best[i] / best[1]))
end
