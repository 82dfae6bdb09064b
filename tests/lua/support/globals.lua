-- globals.lua FILE...: prints where functions of these files use a global after the file is loaded.
-- What is outside of functions runs once, before any script can have replaced anything.

local util, vmdef = require("jit.util"), require("jit.vmdef")

local function name_of(instruction)
    local at = 6 * bit.band(instruction, 0xff)
    return vmdef.bcnames:sub(at + 1, at + 6):match("%S+")
end

local function walk(prototype, file, is_nested)
    local about = util.funcinfo(prototype)
    for pc = 1, about.bytecodes - 1 do
        local instruction = util.funcbc(prototype, pc)
        local name = name_of(instruction)
        if is_nested and (name == "GGET" or name == "GSET") then
            local global = util.funck(prototype, -bit.rshift(instruction, 16) - 1)
            local line = util.funcinfo(prototype, pc).currentline
            print(("%s:%d: %s"):format(file, line, global))
        end
    end
    for i = -1, -about.gcconsts, -1 do
        local constant = util.funck(prototype, i)
        if type(constant) == "proto" then walk(constant, file, true) end
    end
end

for i = 1, select("#", ...) do
    local file = select(i, ...)
    walk(assert(loadfile(file)), file, false)
end
