-- A C function that yields in a root, where nobody can resume it. Loaded with the first.
--
-- Plain Lua raises in the C function; here it has been left already. So it returns, and the error
-- is raised before the next instruction of whoever has called it.

local resume_root = ...

local error, type, raw_running = error, type, coroutine.running
local sethook, gethook = debug.sethook, debug.gethook

local TEXT = "attempt to yield across C-call boundary: a C function yields outside of any "
    .. "coroutine; call it in one (coroutine.wrap)"

-- Resumes the root `co` with the error; returns what the resume returns.
return function(co)
    local hook, mask, count = gethook()
    -- A hook of the runtime's own is set again by the code that has set it.
    if type(hook) ~= "function" then hook = nil end
    local is_raised = false
    local function restore()
        if hook then
            sethook(hook, mask, count)
        else
            sethook()
        end
    end
    sethook(function()
        -- What is left of this function runs before.
        if raw_running() ~= co then return end
        restore()
        is_raised = true
        error(TEXT, 2)
    end, "", 1)
    local ok, what, why = resume_root(co)
    if is_raised then return ok, what, why end
    restore()
    -- There was no other instruction.
    return false, ok and TEXT or what
end
