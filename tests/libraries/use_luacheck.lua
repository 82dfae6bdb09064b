-- needs: lua-check
local luacheck = require "luacheck"
local report = luacheck.check_strings { "local x = 1\ny = 2\nlocal function f(a) return y + z end\n", "x = = 1" }
for _, file in ipairs(report) do
  for _, w in ipairs(file) do print(w.line, w.column, luacheck.get_message(w)) end
end
print(report.warnings, report.errors, report.fatals)
