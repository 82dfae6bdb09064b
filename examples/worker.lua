-- A worker that is started again when it fails: see supervisor.lua.
--
-- Shows: an error that ends a context.

local name = ...

while true do
    local _, what, from, session = context.recv(0)
    if what == "fail" then
        -- Ends the context: nothing else keeps it alive.
        error(name .. " cannot do that", 0)
    end
    context.reply(from, session, name .. " did " .. what)
end
