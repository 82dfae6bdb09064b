-- Signals that a script reacts to, and the end of the process. Loaded when a script looks up the
-- first of these. See docs/api/context.md.

local native, core = ...

local error, format, pcall, tostring, type = error, string.format, pcall, tostring, type
local handlers, hold = core.handlers, core.hold
local check_may_wait, suspend = core.check_may_wait, core.suspend

local NAMES = { HUP = true, USR1 = true, USR2 = true, INT = true, TERM = true }

local context = {}
local callbacks = {} -- name → function

-- A value in a message.
local function show(value)
  if type(value) == "string" then return format("%q", value) end
  if type(value) == "number" or type(value) == "boolean" then return tostring(value) end
  return type(value)
end

-- A signal has come.
handlers[12] = function(name)
  local callback = callbacks[name]
  if callback then return callback(name) end
end

--- Has callback(name) called whenever the process gets a signal: "HUP", "USR1", "USR2", "INT" or
--- "TERM"; with nil, not any more.
---@param name string
---@param callback function|nil
function context.on_signal(name, callback)
  if not NAMES[name] then
    local text = "bad argument #1 to 'on_signal' "
      .. '("HUP", "USR1", "USR2", "INT" or "TERM" expected, got %s)'
    error(format(text, show(name)), 2)
  end
  if callback ~= nil and type(callback) ~= "function" then
    local text = "bad argument #2 to 'on_signal' (function or nil expected, got %s)"
    error(format(text, show(callback)), 2)
  end
  local ok, why = native.hear(name, callback ~= nil)
  if not ok then error("on_signal: " .. why, 2) end
  -- A registered callback keeps the context alive.
  if callback and not callbacks[name] then hold(1) end
  if callbacks[name] and not callback then hold(-1) end
  callbacks[name] = callback
end

--- Ends the process in order: all contexts are destroyed, and what was written to sockets is sent.
--- Does not return, but where nothing can wait.
---@param status? integer|boolean the exit status, as for os.exit
function context.exit(status)
  if status == true then
    status = 0
  elseif status == false then
    status = 1
  end
  local is_known = status == nil
    or type(status) == "number" and status % 1 == 0 and status >= 0 and status <= 255
  if not is_known then
    local text = "bad argument #1 to 'exit' (integer from 0 to 255, or boolean, expected, got %s)"
    error(format(text, show(status)), 2)
  end
  local ok, why = native.exit(status)
  if not ok then error("exit: " .. why, 2) end
  core.stop_timers()
  if pcall(check_may_wait) then suspend() end
end

core.exit = context.exit

return context
