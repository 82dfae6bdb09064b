-- How modules are loaded, and what they see of who loads them.
package.path, package.cpath = "./modules/?.lua", "./modules/?.so"
print(require "modlev", require "modlev")
local names = "moderr moderr1 moderr3 syn selfreq vmerr vmerr retfalse retfalse retnothing retnil ret3 seeall"
for n in names:gmatch "%S+" do
  print(n, pcall(require, n))
  print(n, pcall(function() return require(n) end))
  print(n, pcall(function() local x = require(n) return x end))
  print(type(package.loaded[n]))
end
print(seeall.x, package.loaded.seeall == seeall, require "seeall" == seeall)
print(select('#', require "ret3"))
-- Names.
package.preload["123"] = function(...) print("preload", type(...), ...) return "one23" end
print(require(123), package.loaded["123"])
print(pcall(require, "no\0such"))
print(pcall(require, "deep.er.name"))
print(pcall(require), pcall(require, nil), pcall(require, {}))
local r, t = require, { r = require }
print(pcall(function() r() end))
print(pcall(function() t.r(true) end))
print(pcall(function() t:r() end))
print(pcall(function() require(print) end))
-- Loaders of the script's own.
local saved = package.loaders
print(#saved)
package.loaders = 5
print(pcall(require, "xx"))
package.loaders = {
  function() return 12 end,
  function(n) return "\n\tfoo " .. n end,
  function() return nil end,
  function() return true end,
  function(n) if n == "yes" then return function(...) return {...} end end end,
}
print(pcall(require, "xx"))
print(#require "yes", require "yes"[1])
package.loaders = {function() error("loader two", 2) end}
print(pcall(function() require "l2" end))
package.loaders = {function()
  print(debug.traceback("in loader"))
  print(debug.getinfo(2, "f").func == require, debug.getinfo(3, "l").currentline)
  error("loader one", 1)
end}
print(pcall(function() require "l2" end))
package.loaders = saved
-- package.loaded and package are variables like others.
local old = package.loaded
package.loaded = {}
print(require "ret3", debug.getregistry()._LOADED == old, old.ret3)
package.loaded = old
print(debug.getregistry()._LOADED == package.loaded, package.loaded._G == _G)
local p = package
package = nil
print(require "retnil")
package = p
package.loaded.ret3 = nil
print(require "ret3")
package.loaded.ret3 = "mine"
print(require "ret3")
-- Modules that register themselves, as C modules do.
package.preload.registers = function(name)
  local m = package.loaded[name]
  if type(m) ~= "table" then m = {} package.loaded[name] = m end
  m.f = print
end
print(require "registers" == require "registers", require "registers".f == print)
package.preload.one = function() return require "two" end
package.preload.two = function() return require "one" end
print(pcall(require, "one"))
print(pcall(require, "two"))
-- Files.
print(pcall(dofile, "modules/moderr.lua"))
print(pcall(function() dofile("modules/moderr.lua") end))
print(pcall(dofile, "modules/moderr1.lua"))
print(pcall(dofile, "nofile.lua"))
print(pcall(dofile, {}), pcall(dofile, true))
print(pcall(function() dofile({}) end))
print(pcall(dofile, "modules/syn.lua"))
print(dofile("modules/ret3.lua"))
print(pcall(dofile, 12))
print(select("#", dofile("modules/retnothing.lua")))
