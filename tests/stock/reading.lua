-- What is read from a file, of texts that are numbers and not quite: as `scanf` takes them.

local name = os.tmpname()

local function quoted(text)
    local function shortened(run) return #run > 20 and ("<%d>"):format(#run) or run end
    return (("%q"):format(text):gsub("x+", shortened):gsub("y+", shortened))
end

local function tell(text, ...)
    local file = assert(io.open(name, "wb"))
    file:write(text)
    file:close()
    file = assert(io.open(name, "rb"))
    local found = { file:read(...) }
    for i = 1, select("#", ...) do
        local value = found[i]
        if value ~= value then value = "NaN" end
        io.write(type(value) == "string" and quoted(value) or tostring(value), " ")
    end
    io.write(quoted(file:read("*a")), "\n")
    file:close()
end

local WORDS = {
    "inf",
    "nan",
    "infinity",
    "INFINITY",
    "+inf",
    "-nan",
    "infi",
    "infx",
    "infinit",
    "na",
    "nano",
    "0x",
    "0xg",
    "0x1p4",
    "0x.8",
    "0x1.8p-1",
    "0x1e5",
    "0x1p",
    "1e",
    "1e+",
    "1e5x",
    "1.e5",
    ".5",
    ".",
    "..",
    "1.2.3",
    "--1",
    "+-1",
    "-",
    "1,5",
    "nan(5)",
    "1_000",
    "\v\f7",
    "1\0002",
    "\0001",
}
for _, word in ipairs(WORDS) do
    for _, before in ipairs { "", " \n\t" } do
        tell(before .. word .. " 8 rest", "*n", "*n")
    end
    tell(word, "*n")
end

math.randomseed(1)
local BYTES = "0123456789..eExXpP+-aAfFnNiItTyY  \n,;"
for _ = 1, 600 do
    local text = {}
    for i = 1, math.random(0, 9) do
        local at = math.random(#BYTES)
        text[i] = BYTES:sub(at, at)
    end
    tell(table.concat(text), "*n", 0)
end

-- Lines, pieces and numbers in turn, across the borders of what is read at a time.
local long = ("x"):rep(4094) .. "\n12 " .. ("y"):rep(9000) .. "\n\n\0z\n7"
for size = 4090, 4100 do
    tell(long, size, "*l", "*n", "*l", 0, "*L", 3, "*n")
end
os.remove(name)
