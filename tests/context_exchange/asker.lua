-- Asks a question, and does not live to see the answer.

local main, question, ending = ...
local here = debug.getinfo(1, "S").source:match("^@(.*)/")
local finish = loadfile(here .. "/ending.lua")(main, ending)

if ending == "error" then
    -- Only the main chunk's error ends a context, once nothing is pending.
    context.query(main, question, 0.02)
    finish()
end
context.run(finish)
context.query(main, question)
