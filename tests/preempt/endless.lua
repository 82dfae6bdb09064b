-- node-lua endless.lua [NAME...]: in each of the places of places.lua a context does not return.
-- Others go on, its state is told, and `destroy` and a limit of its turn end it. Prints a line for
-- each: whether it can be cut, its further slices and states once it is there for certain, how it
-- ended, and how with a limit.
local here = arg[0]:match("^(.*)/")
package.path = here .. "/?.lua;" .. package.path

local file = here .. "/places.lua"
local echo = context.create(here .. "/echo.lua")
-- Enough others that want the workers, so that whoever can be cut is.
local others = {}
for i = 1, context.ncpu() do
    others[i] = context.create(file, "a loop")
end
local places, names = dofile(file), { ... }
if #names == 0 then
    for name in pairs(places) do
        names[#names + 1] = name
    end
    table.sort(names)
end

local function start(name, options)
    options.file, options.name = file, name
    local handle = context.create(options, name)
    local ended = {}
    context.monitor(handle, function(_, reason) ended[1] = reason end)
    return handle, ended
end

-- Has it loop for a while, during which others go on.
local function watch(handle)
    local states, answers, before, cpu = {}, 0, nil, math.huge
    repeat
        assert(context.query(echo, answers) == true)
        answers = answers + 1
        local stat = context.stat(handle)
        if not stat then break end
        -- On the way there it may be cut.
        if stat.cpu > 0.01 then
            if not before then
                before, cpu = stat.slices, stat.cpu
            end
            states[stat.state or "none"] = true
        end
        timer.sleep(0.001)
    until stat.cpu > cpu + 0.03 and answers > 20
    return states, before
end

for _, name in ipairs(names) do
    local handle, ended = start(name, {})
    local states, before = watch(handle)
    local stat = context.stat(handle)
    context.destroy(handle)
    local _, code = context.wait(handle, 20)
    while not ended[1] do
        timer.sleep(0.001)
    end
    local limited, over = start(name, { turn_limit = 0.03 })
    local _, late = context.wait(limited, 20)
    while not over[1] do
        timer.sleep(0.001)
    end
    local found = {}
    for state in pairs(states) do
        found[#found + 1] = state
    end
    table.sort(found)
    local slices, shown = stat and stat.slices - before, table.concat(found, " ")
    print(name, places[name][1], slices, shown, code, ended[1], late, over[1])
end
context.destroy(echo)
for _, handle in ipairs(others) do
    context.destroy(handle)
end
