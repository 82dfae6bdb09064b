--- Checks that raise at their caller, for scripts that a state without the runtime runs too. What a
--- test has checked is counted; its name is printed once it has passed.

local checks = 0

local M = {}

--- Checks that two values are equal by `==`.
---@param what string? what they are
function M.same(got, wanted, what)
    checks = checks + 1
    if got ~= wanted then
        local text = "%s: got %s, wanted %s"
        error(text:format(what or "value", tostring(got), tostring(wanted)), 2)
    end
end

--- Checks that a call raises what the pattern is found in.
---@param pattern string
---@param f function
function M.raises(pattern, f, ...)
    checks = checks + 1
    local ok, text = pcall(f, ...)
    if ok then error("no error, wanted: " .. pattern, 2) end
    if not tostring(text):find(pattern) then
        error("error is: " .. tostring(text) .. "\nwanted: " .. pattern, 2)
    end
end

--- The content of a buffer, two digits a byte.
function M.hex(b)
    return (b:tostring():gsub(".", function(c) return string.format("%02x", c:byte()) end))
end

--- Runs a group of checks.
---@param name string
---@param f fun()
function M.test(name, f)
    checks = 0
    f()
    io.write("ok ", name, " (", checks, " checks)\n")
end

--- The least and the largest number of each fixed size; of the inexact ones, one and another.
M.LIMITS = {
    u8 = { 0, 255 },
    i8 = { -128, 127 },
    u16 = { 0, 65535 },
    i16 = { -32768, 32767 },
    u32 = { 0, 4294967295 },
    i32 = { -2147483648, 2147483647 },
    f32 = { -0.5, 2 ^ 100 },
    f64 = { -0.1, 1e300 },
    u64 = { 0ULL, 0xffffffffffffffffULL },
    i64 = { -0x8000000000000000LL, 0x7fffffffffffffffLL },
}

return M
