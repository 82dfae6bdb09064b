-- needs: lua-penlight
local List = require "pl.List"
local t = require "pl.tablex"
local s = require "pl.stringx"
local path = require "pl.path"
local class = require "pl.class"
local template = require "pl.template"
local pretty = require "pl.pretty"
local utils = require "pl.utils"
local lexer = require "pl.lexer"
local data = require "pl.data"
print(List{3,1,2}:sort())
print(pretty.write(t.map(function(x) return x*2 end, {1,2,3}), ""))
print(s.split("a,b,c", ","):join("-"))
print(path.basename("/a/b.c"), path.extension("x.lua"), path.exists("/etc/passwd") and true)
class.Animal() function Animal:_init(n) self.n = n end function Animal:__tostring() return "A:"..self.n end
class.Dog(Animal) function Dog:bark() return self.n .. "!" end
print(Dog("rex"), Dog("rex"):bark(), Dog:class_of(Dog("x")))
print(template.substitute("# for i=1,3 do\n$(i) squared $(i*i)\n# end\n", {_escape="#"}))
for tp, v in lexer.lua("local x = 'hi' + 2") do io.write(tp,":",tostring(v)," ") end print()
print(pcall(utils.assert_arg, 1, 2, "string"))
local strict = require "pl.strict"
print(pcall(function() return undefinedvar end))
local d = data.read(require"pl.stringio".open("a,b\n1,2\n3,4\n"))
print(d:column_by_name("b"))
print(require"pl.app".script_name and "app")
local import = require "pl.import_into"()
local co = require "pl.seq"
print(co.sum{1,2,3})
local comp = require"pl.comprehension".new()
print(List(comp "x^2 for x=1,5"()))
