-- The other end of a connection: does one thing with it, and ends.

local main, port, action, ending = ...
local here = debug.getinfo(1, "S").source:match("^@(.*)/")
local finish = loadfile(here .. "/ending.lua")(main, ending)

local _, sock = tcp.connect("127.0.0.1", port)
if action == "writes" then
    sock:write("data", true)
elseif action == "reads once" then
    sock:read()
end
finish()
