-- User coroutines: `coroutine.resume`, `wrap` and their like, through which waiting calls pass.
--
-- A call that waits inside a coroutine yields WAIT; whoever has resumed that coroutine yields it
-- on, up to the root, and hands the answer down. See core/dispatch.lua, which loads this when a
-- script uses coroutines, and puts what is returned in place of the functions of those names.
--
-- A cut (see core/dispatch.lua) goes up likewise, and comes down again before anything else
-- happens: a hook yields only where nothing but these functions is on the way.
--
-- What coroutines yield, return and raise may be an FFI object, whose `__eq` the VM would call to
-- compare it, with nil too: so such values are only looked at by what calls nothing.
--
-- C code may resume coroutines too, unseen: one that runs while `depth` says that none does was
-- resumed by C. To those that it resumes all is as in plain Lua, but that nothing can wait in them.

local native, core, WAIT, CUT, cut, raw_create, raw_resume, raw_yield, coroutines, stubs = ...

local error, next, rawequal, rawget, rawset = error, next, rawequal, rawget, rawset
local select = select
local setmetatable, type = setmetatable, type
local isyieldable, raw_status = coroutine.isyieldable, coroutine.status
local raw_running = coroutine.running
local getinfo = debug.getinfo
local format, get_root = string.format, core.current

local LEVELS_MAX = 10000

-- Coroutines inside each other for which the C stack suffices in any case, whatever C functions
-- they recurse through: each, and the root, may take 60 MiB of 256.
local LEVELS_FREE = 2
local OVERFLOW = "C stack overflow"

-- How many coroutines run inside the root, each inside the one before: 0 again when a root waits.
local depth = 0
local parked = setmetatable({}, { __mode = "k" }) -- those inside a waiting call …
native.keep_parked(parked)
local parked_count = 0 -- … and how many at most
local depth_free = LEVELS_FREE -- down to where coroutines need no second look: 0 if any is parked

local leave, reenter

-- Hands a cut on upward; afterwards goes on.
local function pass(co, level)
    cut[1] = false
    raw_yield(WAIT, CUT)
    return leave(co, level, raw_resume(co))
end

-- `co` waits, or is cut: hands that on upward.
local function hand_on(co, level, _, why)
    if why == CUT then return pass(co, level) end
    parked[co] = true
    parked_count, depth_free, depth = parked_count + 1, 0, level - 1
    return reenter(co, level, raw_yield(WAIT))
end

-- What follows a resume of `co` at depth `level`.
function leave(co, level, ok, ...)
    local first = ...
    if not first then
        if cut[1] and first == nil then return pass(co, level) end
    elseif ok and type(first) == "table" and first == WAIT then
        return hand_on(co, level, ...)
    end
    depth = level - 1
    return ok, ...
end

function reenter(co, level, ...)
    parked[co] = nil
    parked_count = parked_count - 1
    if parked_count == 0 then depth_free = LEVELS_FREE end
    depth = level
    return leave(co, level, raw_resume(co, ...))
end

-- Why a coroutine cannot be resumed at this depth, if so. Where there is room for one there is for
-- LEVELS_FREE more, so that only every third level need ask.
local function refuse(co, level)
    if parked[co] then return "cannot resume running coroutine" end
    if level > LEVELS_MAX or level % 3 == 0 and not native.has_stack() then return OVERFLOW end
end

-- Raises as the VM's own functions do, under the name by which the script has called.
local function wrong(what)
    local info = getinfo(2, "n")
    local name = info and info.name or "?"
    if info and info.namewhat == "method" then
        error(format("calling '%s' on bad self (%s)", name, what), 3)
    end
    error(format("bad argument #1 to '%s' (%s)", name, what), 3)
end

local function resume(co, ...)
    if type(co) ~= "thread" then wrong("coroutine expected") end
    local level = depth + 1
    if level > depth_free and (level % 3 == 0 or depth_free == 0) then
        local why = refuse(co, level)
        if why then return false, why end
    end
    depth = level
    return leave(co, level, raw_resume(co, ...))
end

-- The VM puts the caller's line before a text, even where there is one.
local function unwrap(ok, ...)
    if ok then return ... end
    local message = ...
    if message and rawequal(message, core.refused) then
        -- In an error handler the VM would replace any error by one that tells nothing.
        native.throw(message)
    end
    error(message, type(message) == "string" and 2 or 0)
end

-- `leave` for coroutines made with `wrap`.
local function leave_wrapped(co, level, ok, ...)
    local first = ...
    local is_table = type(first) == "table"
    if ok and not (is_table and first == WAIT) and (first or not cut[1] or first == false) then
        depth = level - 1
        return ...
    end
    return unwrap(leave(co, level, ok, ...))
end

local function check(co, level)
    local why = refuse(co, level)
    if why then error(why, 3) end
end

local function wrap(...)
    local f = ...
    if type(f) ~= "function" then
        wrong("function expected, got " .. (select("#", ...) > 0 and type(f) or "no value"))
    end
    local co = raw_create(f)
    return function(...)
        local level = depth + 1
        if level > depth_free and (level % 3 == 0 or depth_free == 0) then check(co, level) end
        depth = level
        return leave_wrapped(co, level, raw_resume(co, ...))
    end
end

-- Whether what runs is a root: it counts as the main coroutine of plain Lua.
local function is_root()
    local root = get_root()
    if root ~= nil and raw_running() ~= root then return false end
    -- It may be more where an error has come out of a resume itself.
    depth = 0
    return true
end

local function yield(...)
    if depth == 0 and is_root() then error("attempt to yield across C-call boundary", 2) end
    return raw_yield(...)
end

local function status(co)
    if parked[co] then return "normal" end
    return raw_status(co)
end

local function is_yieldable() return not is_root() and isyieldable() end

local function running()
    if is_root() then return nil end
    return raw_running()
end

local own = {
    resume = resume,
    wrap = wrap,
    yield = yield,
    status = status,
    isyieldable = is_yieldable,
    running = running,
}
for name, f in next, own do
    if not stubs or rawget(coroutines, name) == stubs[name] then rawset(coroutines, name, f) end
end
return own
