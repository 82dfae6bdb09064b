-- Messages of the standard functions.
local function try(f, ...) print(pcall(f, ...)) end
local function text(code)
  local f, why = loadstring(code, "=t")
  if not f then print(why) return end
  print(pcall(f))
end
for _, code in ipairs {
  "local x; x()", "local x; x.y = 1", "x.y.z = 1", "return 1 + {}", "return 'a' + 1", "return {} .. 1",
  "return #nil", "return -{}", "return {} < {}", "return 1 < '2'", "for i = 1, 'x' do end",
  "for i = 1, 10, 0 do break end", "local t = setmetatable({}, {__index = function(t, k) error(k) end}) return t.a",
  "error('x')", "error('x', 0)", "error('x', 2)", "error({})", "error()", "error(nil)", "assert(false)",
  "assert(nil, 'why')", "assert(false, {})", "assert()", "return ('x'):rep(1e10)", "return ('x'):bad()",
  "string.rep()", "string.format('%d', 'x')", "string.format('%y', 1)", "('x'):find('[')", "('x'):gsub('(', '')",
  "table.concat({{}})", "table.concat({1, 2}, ',', 1, 3)", "table.sort({3, 1, 2}, 5)", "table.insert({}, 1, 2, 3)",
  "setmetatable(1, {})", "setmetatable({}, 1)", "tonumber('z', 99)", "tostring()", "ipairs()", "pairs(nil)",
  "next({}, 'x')", "select(0)", "select('x')", "rawset({}, nil, 1)", "unpack({}, 1, 1e8)", "math.floor('x')",
  "math.random(0)", "string.char(256)", "string.char(-1)", "os.date('%Ez')", "os.time({})", "io.open()",
  "io.lines('/nonexistent')", "io.open('/nonexistent'):read()", "loadstring()", "load(5)", "xpcall()", "pcall()",
  "coroutine.create(1)", "coroutine.resume(1)", "coroutine.status(1)", "local f <const> = 1", "goto x", "x = = 1", "return '\\400'", "local a = 'x", "--[[",
  "collectgarbage('bad')", "getfenv({})", "setfenv(1)", "module()", "newproxy({})", "rawget(1, 2)", "rawequal(1)",
  "return bit.band()", "return bit.tobit('x')", "jit.on(1)", "require()" } do text(code) end
try(string.rep) try(string.rep, "x", {}) try(table.concat) try(math.max)
print(pcall(string.dump, print))
print(io.open("/nonexistent/file"))
print(pcall(io.lines, "/nonexistent/file"))
print(os.remove("/nonexistent/file"))
print(os.rename("/nonexistent/a", "/nonexistent/b"))
print(loadfile("/nonexistent/file"))
print(io.type(io.stdout), io.type(5), tostring(io.stdout):sub(1, 6))
print(package.searchpath("no", "./?.lua;./?/x.lua"))
print(loadstring("x ="), loadstring("x =", "@file.lua"), loadstring("x =", "=name"))
print(load(function() return nil end))
print(pcall(load, function() error("piece") end))
-- Coroutines inside of pcall, pcall inside of coroutines.
local co = coroutine.wrap(function(...)
  local ok, a = pcall(function(...) return coroutine.yield(...) end, ...)
  print("in", ok, a)
  local t = setmetatable({}, { __index = function(_, k) return coroutine.yield(k) end })
  print("meta", t.name)
  for v in function() return coroutine.yield("iter") end do print("v", v) end
  print(pcall(coroutine.yield, "direct"))
  error({ code = 5 })
end)
print(co(1, 2)) print(co("a")) print(co("m")) print(co("one")) print(co(nil)) print(pcall(co, "end"))
print(pcall(co))
local c2 = coroutine.create(function() error("boom") end)
print(coroutine.resume(c2)) print(coroutine.resume(c2)) print(coroutine.status(c2))
local c3
c3 = coroutine.create(function() return coroutine.resume(c3) end)
print(coroutine.resume(c3))
print(select("#", coroutine.resume(coroutine.create(function() return nil, nil end))))
