-- The value that the input describes travels, and arrives equal; or the input is taken for a wire
-- form. Run by message.rs, which provides wire_encode, wire_decode and wire_copy.

local ffi = require "ffi"
local int64, uint64 = ffi.typeof "int64_t", ffi.typeof "uint64_t"

--- True if both values are the same, tables and buffers by content. `seen` pairs tables.
local function same(a, b, seen)
    if type(a) ~= type(b) then return false end
    if type(a) == "number" then
        return a == b and 1 / a == 1 / b or a ~= a and b ~= b
    elseif type(a) == "cdata" then
        return ffi.istype(int64, a) == ffi.istype(int64, b) and a == b
    elseif type(a) == "userdata" then
        return a == b or getmetatable(a) ~= nil and tostring(a) == tostring(b)
    elseif type(a) ~= "table" then
        return a == b
    end
    if seen[a] or seen[b] then return seen[a] == b and seen[b] == a end
    seen[a], seen[b] = b, a
    local count = 0
    for key, value in next, a do
        if not same(value, b[key], seen) then return false end
        count = count + 1
    end
    for _ in next, b do
        count = count - 1
    end
    return count == 0
end

--- Checks that a value that has arrived, or was built, travels and arrives the same.
local function check_copy(value)
    local ok, copy = wire_copy(value)
    if ok then
        assert(same(value, copy, {}), "the copy is different")
    else
        -- Another order of the entries may lead to a shared table by a longer way.
        assert(copy:find "deeper than", copy)
    end
end

local take, input, at

function take()
    at = at + 1
    return input:byte(at) or 0
end

local NUMBERS = {
    0,
    1,
    2,
    3,
    8,
    9,
    10,
    -1,
    0.5,
    -0.5,
    1 / 0,
    -1 / 0,
    2 ^ 31,
    2 ^ 32,
    2 ^ 53,
    -2 ^ 31,
    100,
    255,
    256,
    1e300,
    5e-324,
    -0.0,
}

local function number()
    local choice = take()
    if choice < 128 then return NUMBERS[choice % #NUMBERS + 1] end
    return (take() * 256 + take()) * 2 ^ (choice % 64 - 32)
end

local function text()
    local length, letter = take(), string.char(take())
    if length >= 250 then length = (length - 249) * 120 end
    return letter:rep(length)
end

local function bits()
    local value = 0ULL
    for _ = 1, 8 do
        value = value * 256 + take()
    end
    return value
end

--- A table made by the rest of the input, now and then with something in it that does not travel.
local function build()
    local root = {}
    local current, path, tables = root, {}, { root }
    local function put(value)
        local form = take() % 8
        if form < 4 then
            current[#current + 1] = value
        elseif form == 4 then
            current[text()] = value
        elseif form == 5 then
            local key = number()
            current[key] = value
        elseif form == 6 then
            current[take() % 2 == 0] = value
        else
            current[#current + 1 + take() % 12] = value
        end
    end
    while at < #input do
        local kind = take() % 16
        if kind == 0 then
            put(number())
        elseif kind == 1 then
            put(text())
        elseif kind == 2 then
            put(take() % 2 == 0)
        elseif kind == 3 then
            put(uint64(bits()))
        elseif kind == 4 then
            put(int64(bits()))
        elseif kind == 5 then
            put(buffer.new(text()))
        elseif kind == 6 then
            local block = buffer.new(5000, text())
            put(block)
            put(block)
        elseif kind <= 9 then
            local inner = {}
            put(inner)
            tables[#tables + 1] = inner
            path[#path + 1] = current
            current = inner
        elseif kind <= 11 then
            current = table.remove(path) or root
        elseif kind <= 13 then
            put(tables[take() % #tables + 1])
        elseif kind == 14 then
            setmetatable(current, { __index = error, __newindex = nil, __len = error })
        elseif take() % 16 == 0 then
            local odd = { print, coroutine.create(print), io.stdout, ffi.new "int", newproxy() }
            put(odd[take() % 5 + 1])
        elseif take() % 4 == 0 then
            for _ = 1, 90 do
                local inner = {}
                current[1] = inner
                tables[#tables + 1] = inner
                current = inner
            end
        end
    end
    return root
end

--- Decodes bytes that need not be right; what they make must travel in turn.
local function hostile(bytes)
    -- Addresses beyond what the VM can hold as light userdata raise.
    local ok, decoded, value = pcall(wire_decode, bytes)
    if ok and decoded then check_copy(value) end
    assert(decoded ~= nil or type(value) == "string")
    return ok and decoded
end

function fuzz(bytes)
    input, at = bytes, 0
    local form = take() % 4
    if form == 0 then
        hostile(bytes:sub(2))
        return
    end
    if form == 1 then
        local root = build()
        local ok, copy = wire_copy(root)
        if ok then
            assert(same(root, copy, {}), "the copy is different")
        else
            assert(copy:find "not supported", copy)
        end
        return
    end
    -- The wire form of something real, wrong in a few places.
    local flips = {}
    for i = 1, take() % 8 do
        flips[i] = { take() * 256 + take(), take() }
    end
    local wire = wire_encode(build())
    if not wire then return end
    assert(hostile(wire), "what was encoded is refused")
    for _, flip in ipairs(flips) do
        local place = flip[1] % #wire
        if flip[2] == 255 then
            wire = wire:sub(1, place)
            if wire == "" then return end
        else
            wire = wire:sub(1, place) .. string.char(flip[2]) .. wire:sub(place + 2)
        end
        hostile(wire)
    end
end
