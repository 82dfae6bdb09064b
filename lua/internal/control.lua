-- What contexts know of each other beyond messages, and with what they are created: loaded when a
-- script first asks for it. See docs/api/context.md.

local native, core, context = ...

local bad, raise = core.bad, core.raise
local call, defer, hold = core.call, core.defer, core.hold
local self_handle = native.self()

-- Monitors ----------------------------------------------------------------------------------------

local monitors = {} -- handle → callbacks

local function tell(h, reason, detail)
  local callbacks = monitors[h]
  if not callbacks then return end
  monitors[h] = nil
  hold(-#callbacks)
  for i = 1, #callbacks do call(callbacks[i], h, reason, detail) end
end

core.on_end = tell

--- Has callback(handle, reason, detail) called when another context has ended: reason is "normal",
--- "error", "killed", "memory", "time", or "gone" if there is no such context any more. With nil,
--- removes the callbacks for that context.
---@param h integer
---@param callback function|nil
function context.monitor(h, callback)
  local number = type(h) == "string" and tonumber(h) or h
  if type(number) ~= "number" or number ~= number then bad(1, "monitor", "context handle", h) end
  if number == 0 or number == self_handle then
    bad(1, "monitor", "handle of another context", h)
  end
  local callbacks = monitors[number] or {}
  if callback == nil then
    monitors[number] = nil
    hold(-#callbacks)
    return
  end
  if type(callback) ~= "function" then bad(2, "monitor", "function", callback) end
  hold(1)
  callbacks[#callbacks + 1] = callback
  monitors[number] = callbacks
  if not native.watch(number) then defer(tell, number, "gone") end
end

-- Errors ------------------------------------------------------------------------------------------

--- Has callback(message, traceback) called for every error in this context that nobody catches, in
--- the place of the entry in the log. With nil, they are logged again.
---@param callback function|nil
function context.on_error(callback)
  if callback ~= nil and type(callback) ~= "function" then
    bad(1, "on_error", "function or nil", callback, 3)
  end
  core.on_error = callback
end

-- Figures -----------------------------------------------------------------------------------------

--- What a context, this one if none is named, has used and holds; nil if it is gone.
---@param h? integer
---@return table|nil
function context.stat(h)
  if h == nil then return native.stat(self_handle) end
  local number = type(h) == "string" and tonumber(h) or h
  if type(number) ~= "number" or number ~= number then bad(1, "stat", "context handle", h) end
  return native.stat(number) or nil
end

-- Creation with options ---------------------------------------------------------------------------

local DENIALS = {
  ffi = 1,
  io = 2,
  os = 4,
  loadlib = 8,
  ["package.loadlib"] = 8,
  network = 16,
  create = 32,
}

local function wrong(name, expected, value)
  bad(name, "create", expected, value)
end

local function count(options, name)
  local value = options[name]
  if value == nil then return end
  if type(value) ~= "number" or not (value >= 1 and value < 2 ^ 53) then
    wrong(name, "number above 0", value)
  end
  return math.floor(value)
end

local CHECKS = {
  file = function(options)
    if type(options.file) ~= "string" then wrong("file", "file name", options.file) end
    return options.file
  end,
  name = function(options)
    if type(options.name) ~= "string" then wrong("name", "string", options.name) end
    return options.name
  end,
  mailbox = function(options) return count(options, "mailbox") end,
  queries = function(options) return count(options, "queries") end,
  memory = function(options) return count(options, "memory") end,
  turn_limit = function(options)
    local value = options.turn_limit
    if type(value) ~= "number" or not (value > 0 and value < math.huge) then
      wrong("turn_limit", "number of seconds above 0", value)
    end
    return value
  end,
  worker = function(options)
    local value, workers = options.worker, native.ncpu()
    if type(value) ~= "number" or value % 1 ~= 0 or value < 0 or value >= workers then
      local last = workers - 1
      wrong("worker", last == 0 and "0" or ("integer from 0 to %d"):format(last), value)
    end
    return value
  end,
  deny = function(options)
    local list = options.deny
    if type(list) ~= "table" then wrong("deny", "table of names", list) end
    local denied = 0
    for _, name in ipairs(list) do
      if not DENIALS[name] then
        wrong("deny", '"ffi", "io", "os", "loadlib", "network" or "create"', name)
      end
      denied = bit.bor(denied, DENIALS[name])
    end
    return denied
  end,
}

--- context.create with a table in place of the file's name.
function core.create_with(options, ...)
  local checked = {}
  for name in pairs(options) do
    local check = CHECKS[name]
    if not check then
      raise("bad argument #1 to 'create' (no option named " .. core.describe(name) .. ")")
    end
    checked[name] = check(options)
  end
  if not checked.file then wrong("file", "file name") end
  return native.create(checked.file, package.path, package.cpath, checked, ...)
end
