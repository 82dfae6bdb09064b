-- Marks of tables had the places of the table `package` and of what the library's functions find
-- their globals by: whoever used json first had no modules, and could change what the library is.
print(json.encode(json.object({ 1 })))
print(type(package.loaded), type(package.preload), require("string") == string)
local cjson = require("cjson")
local marks = {
    getmetatable(json.array()),
    getmetatable(json.object()),
    getmetatable(msgpack.ext(1, "")),
    cjson.empty_array_mt,
    package,
}
for i, mark in ipairs(marks) do
    for k = 1, i - 1 do
        assert(mark ~= marks[k], "two are one")
    end
    if mark ~= package then assert(next(mark) == nil and getmetatable(mark) == nil, i) end
end
cjson.empty_array_mt.__index = function(_, name) error("the library asks for " .. name) end
print((udp.open("127.0.0.1", 0)))
