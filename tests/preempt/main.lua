-- Runs programs in contexts: node-lua main.lua SEED CONTEXTS ROUNDS [NOISE]
-- Prints their hashes; on standard error how often they were cut. Beside them run NOISE endless
-- loops, and as many pairs that ask each other, so that turns are cut all the time.
local seed, contexts, rounds, noise = ...

if seed == "loop" then
    while true do
    end
elseif seed == "ask" then
    while true do
        context.query(contexts, 1)
    end
end

local file = arg[0]
local here = file:match("^(.*)/")
package.path = here .. "/?.lua;" .. package.path

local echo = context.create(here .. "/echo.lua")
local programs, others, found = {}, { echo }, {}
for i = 1, tonumber(contexts) do
    local arguments = { tonumber(seed) + i, tonumber(rounds), echo }
    local handle = context.create(here .. "/program.lua", unpack(arguments))
    context.recv(handle, function(_, value) found[handle] = value end)
    programs[i] = handle
end
for _ = 1, tonumber(noise or 0) do
    local other = context.create(here .. "/echo.lua")
    others[#others + 1] = other
    others[#others + 1] = context.create(file, "ask", other)
    others[#others + 1] = context.create(file, "loop")
end
local cuts = 0
for i, handle in ipairs(programs) do
    context.wait(handle)
    context.recv(handle, nil)
    local program = found[handle]
    if not program then error(("program %d ended without a result"):format(seed + i), 0) end
    print(program.seed, bit.tohex(program.hash), program.finalised)
    cuts = cuts + program.cuts
end
io.stderr:write(cuts, " cuts\n")
for _, handle in ipairs(others) do
    context.destroy(handle)
end
