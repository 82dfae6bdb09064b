-- What is first used by a finaliser, or an error handler, is loaded there.
package.path, package.cpath = "./modules/?.lua", ""
package.preload.given = function(...) return "given " .. ... end
local function in_finaliser(f, ...)
  local arguments = { n = select("#", ...), ... }
  local object = newproxy(true)
  getmetatable(object).__gc = function() print(pcall(f, unpack(arguments, 1, arguments.n))) end
  object = nil
  collectgarbage() collectgarbage()
end
in_finaliser(require, "given")
in_finaliser(function() return require "ffi".sizeof "int64_t" end)
in_finaliser(require, "missing.module.x")
in_finaliser(dofile, "missing.lua")
print(xpcall(function() error "why" end, function(why) return why .. ", " .. require "given" end))
package.preload.other = function() package.loaded.given = nil return require "given" end
print(xpcall(function() error "why" end, function(why) return why .. ", " .. require "other" end))
package.preload.loops = function() return require "loops" end
print(xpcall(function() error "why" end, function(why) return select(2, pcall(require, "loops")) end))
print(xpcall(require, function(why) return why .. ", " .. require "given" end, "loops"))
