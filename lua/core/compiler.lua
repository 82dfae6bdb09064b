-- The options -j and -O of the command line: the first word is the letter, the second what follows.

local kind, text = ...

local error, pcall, require, tostring, type = error, pcall, _G.require, tostring, type
local find, format, sub, unpack = string.find, string.format, string.sub, unpack

-- What is between commas; nothing between two of them is nil.
local function split(options)
    local words, n, start = {}, 0, 1
    if not options or options == "" then return words, 0 end
    repeat
        local comma = find(options, ",", start, true)
        local word = sub(options, start, comma and comma - 1)
        n = n + 1
        words[n] = word ~= "" and word or nil
        start = comma and comma + 1
    until not comma
    return words, n
end

local function apply(f, options)
    local words, n = split(options)
    -- Errors name no place: it is the command line.
    local ok, why = pcall(f, unpack(words, 1, n))
    if not ok then error(why, 0) end
end

if kind == "O" then return apply(package.loaded["jit.opt"].start, text) end
local equals = find(text, "=", 1, true)
local name = sub(text, 1, equals and equals - 1)
local f = _G.jit[name]
if type(f) ~= "function" then
    local ok, module = pcall(require, "jit." .. name)
    f = ok and type(module) == "table" and module.start
    if not f then
        local why = ok and "it has no function start" or tostring(module)
        if not ok and find(why, "not found:", 1, true) then
            why = "there is no module jit." .. name
        end
        error(format("unknown command -j%s: %s", text, why), 0)
    end
end
apply(f, equals and sub(text, equals + 1))
