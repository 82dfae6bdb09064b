-- Texts of which every fifth stays, then longer ones, and so on: see tests/memory_holdings.rs.

local deaf = ...
local live = {}
local most, size = 120e6, 300
while size < 2e5 do
    local stat = context.stat()
    local n = math.floor((most * 0.85 - stat.lua_bytes - stat.buffer_bytes) / (size + 40))
    do
        local all, kept = {}, {}
        for i = 1, n do
            all[i] = ("y"):rep(size - 12) .. i
        end
        for i = 1, n, 5 do
            kept[#kept + 1] = all[i]
        end
        live[#live + 1] = kept
    end
    collectgarbage()
    collectgarbage()
    size = math.floor(size * 2.2)
end
local text = ("m"):rep(2 ^ 20)
repeat
until not context.send(deaf, text)
return live
