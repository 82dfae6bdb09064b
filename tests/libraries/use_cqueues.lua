-- needs: lua-cqueues
-- Who of the coroutines is first differs from run to run, in LuaJIT too.
local lines, write = {}, print
local function print(...)
  local words = { ... }
  for i = 1, select("#", ...) do words[i] = tostring(words[i]):gsub("0x%x+", "ADDR") end
  lines[#lines + 1] = table.concat(words, "\t")
end
local cqueues = require "cqueues"
local socket = require "cqueues.socket"
local condition = require "cqueues.condition"
local cq = cqueues.new()
local log = {}
cq:wrap(function() for i=1,3 do cqueues.sleep(0.01) print("a", i) end end)
cq:wrap(function() cqueues.sleep(0.005) for i=1,3 do cqueues.sleep(0.01) print("b", i) end end)
local cond = condition.new()
cq:wrap(function() print("wait", cond:wait()) end)
cq:wrap(function() cqueues.sleep(0.02) cond:signal() end)
cq:wrap(function() local co = coroutine.wrap(function() coroutine.yield(1) coroutine.yield(2) end) print(co(), co()) end)
cq:wrap(function() local ok, e = pcall(function() cqueues.sleep(0.001) error("inside") end) print(ok, e) end)
cq:wrap(function() print(type(coroutine.running()), coroutine.status(coroutine.running()), coroutine.isyieldable and coroutine.isyieldable()) end)
local srv = socket.listen("127.0.0.1", 0)
local _, _, port = srv:localname()
cq:wrap(function() local c = srv:accept() for l in c:lines("*L") do c:write("echo ", l) end c:close() end)
cq:wrap(function() local c = socket.connect("127.0.0.1", port) c:write("hello\n") c:flush() print(c:read("*l")) c:close() end)
for err in cq:errors() do print("err", err) end
cq:wrap(function() error("uncaught") end)
print(cq:loop())
print(cqueues.running())
table.sort(lines)
write(table.concat(lines, "\n"))
