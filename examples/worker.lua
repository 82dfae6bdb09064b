-- Shows: a worker that can fail; started by supervisor.lua.

local name = ...

while true do
  local _, what, from, session = context.recv(0)
  if what == "fail" then
    -- Ends the context: nothing else keeps it alive.
    error(name .. " cannot do that", 0)
  end
  context.reply(from, session, name .. " did " .. what)
end
