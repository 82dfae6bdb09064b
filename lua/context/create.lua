-- Creating contexts, naming and logging, and checking results. Loaded when a script looks up the
-- first of these. See docs/api/context.md.

local native, core = ...

local ipairs, select, tonumber = ipairs, select, tonumber
local tostring, type, unpack = tostring, type, unpack
local concat = table.concat
local package = package
local bad, raise, call, defer = core.bad, core.raise, core.call, core.defer
local hold, check_handle = core.hold, core.check_handle

local NAME_MAX = 253
local PATH_MAX = 4095 -- what the system takes

local self_handle = native.self()

local context = {}

-- What a chunk of the library returns, which is loaded with the first call.
local function lazily(chunk)
    local loaded
    return function()
        loaded = loaded or native.load(chunk)(native, core)
        return loaded
    end
end
core.monitors, core.creation = lazily("context/monitor"), lazily("context/options")

for _, name in ipairs({ "monitor", "on_error", "stat" }) do
    context[name] = function(...) return core.monitors()[name](...) end
end

-- Where modules of a new context are found: where those of this one are, but that who cannot read
-- files does not choose it (context/confine.lua).
local function get_paths()
    if native.module_path then return native.module_path, "" end
    return package.path, package.cpath
end

-- Raises unless the system could open it: `what` of function `name` is wrong.
local function check_file(file, what, name)
    if type(file) ~= "string" then bad(what, name, "file name", file) end
    if #file > PATH_MAX then
        bad(what, name, "file name of at most " .. PATH_MAX .. " bytes", file)
    end
end
core.check_file = check_file

--- Creates a context that runs a file. Returns its handle at once. In place of the file's name a
--- table may give options too.
---@param file string|table
---@param ... any
---@return integer handle
function context.create(file, ...)
    local handle, why
    local path, cpath = get_paths()
    if type(file) == "table" then
        handle, why = core.creation().create(file, path, cpath, ...)
    else
        check_file(file, 1, "create")
        handle, why = native.create(file, path, cpath, nil, ...)
    end
    if handle == nil then raise(why) end
    return handle
end

--- Calls f(...) in a coroutine of its own, on the next turn.
---@param f function
---@param ... any
function context.run(f, ...)
    if type(f) ~= "function" then bad(1, "run", "function", f) end
    hold(1)
    local n, arguments = select("#", ...), { ... }
    defer(function()
        hold(-1)
        call(f, unpack(arguments, 1, n))
    end)
end

--- Writes the arguments, as text, to the log.
---@param ... any
function context.log(...)
    local words = {}
    for i = 1, select("#", ...) do
        local word = tostring((select(i, ...)))
        if type(word) ~= "string" then raise("'tostring' must return a string to 'log'") end
        words[i] = word
    end
    native.log(concat(words, "\t"))
end

--- Names this context if given a string; otherwise returns the name of a context, nil if none.
---@param which? string|integer
---@return string|nil
function context.name(which)
    if type(which) == "string" and tonumber(which) == nil then
        if which == "" or #which > NAME_MAX then
            bad(1, "name", "name of 1 to " .. NAME_MAX .. " bytes", which)
        end
        native.set_name(which)
        return which
    end
    return native.get_name(type(which) == "nil" and self_handle or check_handle(which, 1, "name"))
        or nil
end

context.ncpu = native.ncpu
context.thread = native.thread

--- Returns what follows a leading true; raises the text of the failure otherwise.
---@param ... any the results of a call
---@return any ...
function context.check(ok, ...)
    -- Comparing would call what objects of FFI have for it.
    local is_result = type(ok) == "boolean"
    if is_result and ok then return ... end
    local code, text = ...
    if is_result and type(code) == "number" then
        if type(text) == "string" then raise(text) end
        text = native.strerror(code)
        raise(text == native.strerror(-1) and text .. " " .. code or text)
    end
    -- As io.open and many libraries have it.
    if not ok and type(code) == "string" then raise(code) end
    if is_result then bad(2, "check", "code of the failure", code) end
    bad(1, "check", "true or false, as a call has returned it,", ok)
end

--- The text of a failure code.
---@param code integer
---@return string
function context.strerror(code)
    if type(code) ~= "number" then bad(1, "strerror", "number", code) end
    return native.strerror(code)
end

core.create = context.create

return context
