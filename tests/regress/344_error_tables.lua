-- An error that is a table is told with what is in it, and why no text could be made of one.
local name = os.tmpname()
for _, code in ipairs({
    "error({ code = 5, message = 'no\\nroom', fatal = true, inner = {} })",
    "error({})",
    "error(setmetatable({ code = 5 }, { __tostring = function() return 'text' end }))",
    "error(setmetatable({ code = 5 }, { __tostring = function() error('inside', 0) end }))",
    "error(setmetatable({ code = 5 }, { __tostring = function() return {} end }))",
    "error(setmetatable({ code = 5 }, { __index = { more = 1 } }))",
}) do
    local f = io.open(name, "w")
    f:write(code)
    f:close()
    local told
    local id = context.create(name)
    context.monitor(id, function(_, _, detail) told = detail:match("^[^\n]*") end)
    repeat
        timer.sleep(0.001)
    until told
    print((told:gsub("0x%x+", "0x")))
end
os.remove(name)
