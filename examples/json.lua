-- JSON and MessagePack: one value as text and as bytes, and what is said of broken ones.
--
-- Shows: empty arrays and null that stay what they are, 64-bit numbers, errors that name the place,
-- and lines of JSON as they come from a socket, in buffers.
-- Run: node-lua examples/json.lua
-- Expected output:
--   {"id":9007199254740993,"name":"Ann","nick":null,"scores":[1.5,2],"tags":[]}
--   52 bytes as MessagePack, the same again
--   .scores[3] is a function, which cannot be written
--   ',' or ']' expected at line 2 column 12 (byte 24)
--   ann +5, bob -2
--   sum 3

local player = {
    id = 9007199254740993LL, -- one more than a number can hold
    name = "Ann",
    nick = json.null,
    scores = { 1.5, 2 },
    tags = json.array({}),
}
local text = json.encode(player, { sort_keys = true })
print(text)

local bytes = msgpack.encode(json.decode(text))
local again = json.encode(msgpack.decode(bytes), { sort_keys = true, empty = "array" })
print(#bytes .. " bytes as MessagePack, " .. (again == text and "the same again" or again))

-- Failures raise, and say where; the rest of the message is the script's line.
local function why(call, ...)
    local _, message = pcall(call, ...)
    return (message:gsub("^.*code: ", ""))
end
player.scores[3] = print
print(why(json.encode, player))
print(why(json.decode, '{ "scores":\n  [ 1.5, 2 "x" ] }'))

-- Lines of JSON, one message each: a buffer is read where it is.
local stream = buffer.new('{"who":"ann","by":5}\n{"who":"bob","by":-2}\n')
local sum, told = 0, {}
while #stream > 0 do
    local line = stream:split(stream:find("\n"))
    local move = json.decode(line)
    sum = sum + move.by
    told[#told + 1] = ("%s %+d"):format(move.who, move.by)
end
print(table.concat(told, ", "))
print("sum " .. sum)
