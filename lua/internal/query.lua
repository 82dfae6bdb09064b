-- context.query, and what becomes of answers. Loaded when a script looks up what lua/context.lua
-- does not have. See docs/api/context.md.

local native, core = ...

local error, select = error, select
local handlers, options = core.handlers, core.options
local register, cancel, set_timeout = core.register, core.cancel, core.set_timeout
local suspend, check_may_wait, conclude = core.suspend, core.check_may_wait, core.conclude
local check_handle = core.check_handle
local native_query = native.query

local QUERIES_FULL = 213

local context = {}

-- Sessions of queries that wait for an answer → whom they asked; and how many they are.
local asked = {}

-- The answer is there, or nobody waits for it any more; false if that was so before.
local function forget(session)
  if asked[session] == nil then return false end
  asked[session] = nil
  core.unanswered = core.unanswered - 1
  return true
end

handlers[2] = function(session, ok, value)
  if forget(session) then return conclude(session, ok, value) end
end

--- Asks another context and waits for the answer; with a callback, does not wait.
---@param h integer
---@param value any
---@param ... any timeout in seconds, callback
---@return boolean ok, any answer or code; with a callback the session or the code
function context.query(h, ...)
  local n = select("#", ...)
  if n == 0 then error("bad arguments to 'query' (a handle and a value expected)", 2) end
  h = check_handle(h, 1, "query")
  local value, a, b = ...
  local timeout, callback, given = options("query", 3, n - 1, a, b)
  local entry, session
  if callback then
    entry = function(ok, result)
      forget(session)
      if given == 0 then return callback(ok, result, h, value) end
      return callback(ok, result, h, value, a)
    end
  else
    check_may_wait()
  end
  session = register(entry)
  local ok, why = native_query(h, session, value)
  if why == QUERIES_FULL and native.recount(core.unanswered) then
    ok, why = native_query(h, session, value)
  end
  if not ok then
    cancel(session)
    if ok == nil then error(why, 2) end
    return false, why
  end
  asked[session] = h
  core.unanswered = core.unanswered + 1
  if timeout > 0 then set_timeout(session, timeout) end
  if callback then return true, session end
  local result
  ok, result = suspend()
  forget(session)
  return ok, result
end

core.asked, core.forget = asked, forget

return context
