-- Messages of coroutines.
local function text(code) print(pcall(assert(loadstring(code, "=t")))) end
for _, code in ipairs {
  "coroutine.wrap(1)", "coroutine.wrap(function() error('in') end)()", "local c = coroutine.wrap(function() end) c() c()",
  "coroutine.yield(1)", "coroutine.wrap(function() error({}) end)()",
} do text(code) end
print(pcall(string.gsub, "x", "x", function() coroutine.yield() end))
print(coroutine.resume(coroutine.create(function() table.sort({ 1, 2 }, coroutine.yield) end)))
