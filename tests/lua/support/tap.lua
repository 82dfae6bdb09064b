--- Counts checks and prints them as TAP. Ends the script with exit status 1 if one failed.
--
-- It does not run anything at the same time: a test that needs other coroutines starts them.
--
--     local tap = require("support.tap")
--     tap.test("one and one", function()
--       tap.is(1 + 1, 2, "make two")
--     end)
--     tap.done()

local checks, failed = 0, 0
local current = "main"

local M = {}

local function show(value)
    if type(value) == "string" then return ("%q"):format(value) end
    return tostring(value)
end

--- Counts one check; `name` says what holds.
---@param good any
---@param name string
---@param why string? printed if it does not hold
---@return boolean
function M.ok(good, name, why)
    checks = checks + 1
    local line = ("ok %d - %s: %s"):format(checks, current, name)
    if good then
        print(line)
        return true
    end
    failed = failed + 1
    print("not " .. line)
    if why then print("# " .. why:gsub("\n", "\n# ")) end
    return false
end

--- Checks that two values are equal by `==`.
function M.is(got, expected, name)
    local why = ("expected %s, got %s"):format(show(expected), show(got))
    return M.ok(got == expected, name, why)
end

--- Checks that a call raises a message that contains the plain text `part`.
function M.raises(name, part, f, ...)
    local good, message = pcall(f, ...)
    if good then return M.ok(false, name, "it returned") end
    local found = tostring(message):find(part, 1, true) ~= nil
    return M.ok(found, name, ("%q is not in: %s"):format(part, tostring(message)))
end

--- Runs a group of checks; an error in it is a failed check.
---@param name string
---@param f fun()
function M.test(name, f)
    current = name
    local good, message = xpcall(f, debug.traceback)
    if not good then M.ok(false, "raised", tostring(message)) end
    current = "main"
end

--- Prints the plan; raises if a check failed, so that the script exits with status 1.
function M.done()
    print(("1..%d"):format(checks))
    if failed > 0 then error(("%d of %d checks failed"):format(failed, checks), 0) end
end

return M
