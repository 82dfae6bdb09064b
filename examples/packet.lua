-- Packets: building and parsing binary packets in compiled code.
--
-- Shows: typed reads and writes of a buffer, checked against its length, at no cost once compiled;
-- a layout declared once; a C struct laid over the bytes. Offsets count from 0.
-- Run: node-lua examples/packet.lua
-- Expected output:
--   a move is 13 bytes: 01 00 00 00 07 3f c0 00 00 c0 20 00 00
--   kind 1, id 7, x 1.5, y -2.5
--   half a move: f32be: offset 9, width 4 is outside the buffer of 12 bytes (offsets count from 0)
--   a greeting is 18 bytes: ann, 3 items, level 300
--   10000 moves, sum of ids 50005000, as structs 50005000

local ffi = require("ffi")
local packet = require("packet")

-- By hand: field by field, each with its type and byte order.

local MOVE = 1
local MOVE_BYTES = 13 -- kind u8, id u32, x f32, y f32, most significant byte first

local function put_move(b, id, x, y) b:put_u8(MOVE):put_u32be(id):put_f32be(x):put_f32be(y) end

local function read(b, at) return b:u8(at), b:u32be(at + 1), b:f32be(at + 5), b:f32be(at + 9) end

local b = buffer.new()
put_move(b, 7, 1.5, -2.5)
local hex = b:tostring():gsub(".", function(byte) return ("%02x "):format(byte:byte()) end)
print(("a move is %d bytes: %s"):format(#b, hex:sub(1, -2)))
print(("kind %d, id %d, x %g, y %g"):format(read(b, 0)))

-- A packet from the network may lie about its length: reading past the end raises.
local half = b:split(MOVE_BYTES - 1)
local _, message = pcall(read, half, 0)
print("half a move: " .. message:gsub("^.-: ", ""))

-- By layout: declared once, with code compiled for it.

local GREETING = packet.layout({
    endian = "B",
    { "kind", "u8" },
    { "items", "u32", 3 },
    { "name", "char", 3 },
    { "level", "varint" },
})

local greeting = GREETING:encode({ kind = 2, items = { 10, 20, 30 }, name = "ann", level = 300 })
local got = GREETING:decode(greeting)
print(
    ("a greeting is %d bytes: %s, %d items, level %d"):format(
        #greeting,
        got.name,
        #got.items,
        got.level
    )
)

-- Many packets in one buffer: the loop compiles, nothing is allocated.
local count = 10000
local stream = buffer.new(count * MOVE_BYTES)
for id = 1, count do
    put_move(stream, id, id / 2, -id)
end
local sum = 0
for i = 0, count - 1 do
    local _, id = read(stream, i * MOVE_BYTES)
    sum = sum + id
end

-- By struct: the same bytes as an array, without any check and in the byte order of this machine,
-- hence the swap. `stream` must stay referenced while its pointer is in use.
ffi.cdef([[
struct move { uint8_t kind; uint32_t id; float x, y; } __attribute__((packed));
]])
local pointer, length = stream:ptr()
local moves, swapped = ffi.cast("const struct move *", pointer), 0
for i = 0, length / ffi.sizeof("struct move") - 1 do
    local id = moves[i].id
    swapped = swapped + tonumber(ffi.cast("uint32_t", ffi.abi("le") and bit.bswap(id) or id))
end
print(("%d moves, sum of ids %d, as structs %d"):format(count, sum, swapped))
