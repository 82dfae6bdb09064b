-- What functions and frames look like.
local function show(name, f)
  local i = debug.getinfo(f)
  print(name, i.what, i.short_src, i.source, i.currentline, i.linedefined, i.lastlinedefined)
  print(i.nups, i.nparams, i.isvararg, i.func == f, i.name, i.namewhat)
  print(pcall(string.dump, f))
  if i.nups == 0 then print(debug.getupvalue(f, 1), pcall(debug.upvalueid, f, 1)) end
  print(pcall(setfenv, f, {}), getfenv(f) == _G)
  print(debug.getinfo(f, "L").activelines)
end
for _, name in ipairs { "require", "dofile", "print", "loadfile", "pcall", "setfenv", "tostring" } do
  show(name, _G[name])
end
for _, name in ipairs { "create", "resume", "wrap", "yield", "status", "running", "isyieldable" } do
  show(name, coroutine[name])
end
for _, name in ipairs { "getinfo", "traceback", "getlocal", "sethook", "getupvalue" } do
  show(name, debug[name])
  print((tostring(debug[name]):gsub("%d+", "N")))
end
for _, name in ipairs { "write", "open", "lines", "read" } do show(name, io[name]) end
for _, name in ipairs { "time", "clock", "date", "exit", "getenv" } do show(name, os[name]) end
show("dump", string.dump)
print(debug.getinfo(1, "S").what, debug.getinfo(2, "S").what, debug.getinfo(3))
print(debug.getinfo(0, "n").name, debug.getinfo(0, "S").what)
-- Coroutines from outside.
local parent
local outer = coroutine.create(function()
  local inner = coroutine.create(function()
    print(debug.traceback(parent, "parent"))
    print(debug.getinfo(parent, 0, "S").what, debug.getinfo(parent, 1, "Sl").currentline)
    print(debug.getinfo(parent, 0, "n").name, debug.getinfo(parent, 2))
    coroutine.yield(1)
  end)
  parent = coroutine.running()
  coroutine.resume(inner)
  print(debug.traceback(inner, "child"))
  print(debug.traceback(inner, "child", 1))
  print(debug.getinfo(inner, 0, "n").name, debug.getinfo(inner, 1, "l").currentline)
end)
print(coroutine.resume(outer))
print(debug.traceback(outer), debug.getinfo(outer, 0))
local wrapped = coroutine.wrap(function()
  print(debug.traceback("in wrap"))
  print(debug.getinfo(2), pcall(debug.getinfo, 1, "?"))
end)
wrapped()
local failed = coroutine.create(function() local x = nil; return x.y end)
print(coroutine.resume(failed))
print(debug.traceback(failed, "failed"))
-- Tracebacks.
print(debug.traceback(nil), debug.traceback(12), debug.traceback("x", 0), debug.traceback("x", 5))
print(debug.traceback(print) == print, pcall(debug.traceback, {}) == true)
print(pcall(debug.traceback, "x", "y"))
local function deep(n)
  if n == 0 then print(debug.traceback("deep")) return 1 end
  return 1 + deep(n - 1)
end
for n = 17, 24 do deep(n) end
deep(500)
print(xpcall(function() error("x") end, debug.traceback))
print(xpcall(function() local t; t.x = 1 end, debug.traceback))
print(xpcall(function() error({}) end, function(e) return type(e) end))
print(select(2, xpcall(function() require "no.such" end, function(e)
  return (debug.traceback(e):gsub("^.*stack", "stack"))
end)))
print(pcall(debug.getinfo), debug.getinfo(99))
print(pcall(debug.getinfo, "x"))
print(pcall(debug.getinfo, 1, "?"), pcall(debug.getinfo, print, ">"))
-- Levels.
local function blame(level) error("blamed", level) end
for level = 0, 5 do print(level, pcall(function() blame(level) end)) end
print(pcall(error, "x", 2), pcall(error), pcall(error, nil, 2))
local env = setmetatable({}, { __index = _G })
print(pcall(function() setfenv(1, env) x = 5 return x, _G.x end), env.x)
print(pcall(getfenv, 50), pcall(setfenv, 50, {}))
print(debug.getlocal(1, 1), debug.getlocal(1, 2))
-- Variables that are set from outside.
do
  local function f() local a = 1 print(debug.setlocal(1, 1, 5), a) end
  f()
  local x, y = 1, 2
  local function g() return x end
  local function h() return y end
  print(debug.setupvalue(g, 1, 9), g(), x)
  debug.upvaluejoin(g, 1, h, 1)
  print(g(), debug.upvalueid(g, 1) == debug.upvalueid(h, 1))
end
