-- Is asked, or waited for, and ends at one of several points.

local main, point, ending = ...
local here = debug.getinfo(1, "S").source:match("^@(.*)/")
local finish = loadfile(here .. "/ending.lua")(main, ending)

if point == "never" then
    timer.sleep(3600)
elseif point == "queued" then
    while context.stat().mailbox == 0 do
        timer.sleep(0.001)
    end
elseif point ~= "before" then
    local _, _, from, session = context.recv(main)
    if point == "answered" then context.reply(from, session, 1) end
end
finish()
