-- For whom callbacks run: should one end by an error, the context that has asked is told. Loaded by
-- internal/task.lua when the first callback for a query waits, or fails.

local native = ...

-- Root coroutine → who has asked, and in which session.
local askers, sessions = {}, {}

-- A root coroutine runs a callback for a query.
local function serve(co, from, session)
  askers[co], sessions[co] = from, session
end

-- It is done, or has failed.
local function stop_serving(co, has_failed)
  local from, session = askers[co], sessions[co]
  if not from then return end
  askers[co], sessions[co] = nil, nil
  if has_failed then native.refuse(from, session) end
end

return serve, stop_serving
