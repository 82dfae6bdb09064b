-- Objects that run code of the script when they are compared, with nil too, go where any value goes.
local ffi = require "ffi"
ffi.cdef "typedef struct { int x; } point;"
local point = ffi.metatype("point", {
  __eq = function(a, b) return a.x == b.x end,
  __tostring = function(p) return "point " .. p.x end,
})
local alike = ffi.metatype("struct { int x; }", { __eq = function() return true end, __tostring = function() return "alike" end })
local null = ffi.cast("void *", 0)
for _, object in ipairs { point(1), alike(1), null } do
  local co = coroutine.create(function(...) print("got", ...) print("got", coroutine.yield(object)) error(object) end)
  for _ = 1, 3 do print(coroutine.resume(co, object)) end
  local next_one = coroutine.wrap(function() coroutine.yield(object) coroutine.yield(object, 2) return object end)
  print(next_one(), (select("#", next_one())), next_one())
  print(pcall(coroutine.wrap(function() error(object) end)))
  print(coroutine.resume(coroutine.wrap(function() coroutine.yield(coroutine.create(function() return object end)) end)()))
  package.preload.returns = function() return object end
  package.preload.sets = function(name) package.loaded[name] = object end
  print(require "returns", require "returns", require "sets", require "sets")
  package.loaded.returns, package.loaded.sets = nil, nil
  print(pcall(dofile, object))
  print(pcall(loadfile, object))
end
package.preload = nil
print(pcall(require, "nothing"))
