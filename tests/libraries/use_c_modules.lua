-- needs: lua-lpeg lua-zlib lua-posix lua-yaml lua-cjson lua-socket lua-filesystem
for _, n in ipairs{"lpeg","zlib","posix","yaml","cjson","socket","lfs","posix.unistd","re","mime","ltn12","socket.http"} do
  local ok, m = pcall(require, n)
  print(n, ok, type(m), ok or m)
  print(pcall(require, n) and require(n) == m, package.loaded[n] == m)
end
local zlib = require "zlib"
local s = zlib.deflate()(("abc"):rep(1000), "finish")
print(#s, zlib.inflate()(s) == ("abc"):rep(1000))
local posix = require "posix"
print(posix.getpid and type(posix.getpid()), posix.version)
local re = require "re"
print(re.match("the number 423", "{%a+} %s {%a+} %s {%d+}"))
print(require "cjson".encode({ 1, 2, { a = "b" } }), require "cjson".decode('[1,{"x":null}]')[2].x == require "cjson".null)
print(require "lfs".attributes("/", "mode"), require "socket".gettime() > 0)
