-- Runs the input as operations on a few buffers, and compares them with strings after each.

local ffi = require "ffi"

local SLOTS = 4
local CONTENT_MAX = 40000
local SIZES = {
    0,
    1,
    2,
    7,
    31,
    32,
    33,
    63,
    64,
    100,
    255,
    511,
    512,
    513,
    1024,
    1535,
    1536,
    1537,
    4000,
    9000,
}

local input, at

local function take()
    at = at + 1
    return input:byte(at) or 0
end

--- A size: small, or around a limit of the implementation.
local function size()
    local choice = take()
    return choice < 128 and choice % 40 or SIZES[choice % #SIZES + 1]
end

local function text()
    local length, first = size(), take()
    if length == 0 then return "" end
    return (string.char(first, (first + 1) % 256, (first * 7) % 256)):rep(length):sub(1, length)
end

--- Contents by slot; nil once released.
local buffers, models

local function set(slot, object, model)
    buffers[slot], models[slot] = object, model
end

local function slot() return take() % SLOTS + 1 end

--- Calls a method that may raise; it must raise exactly if it should.
local function expect(allowed, name, ...)
    local ok, first, second = pcall(buffer[name], ...)
    if ok ~= allowed then
        error(("%s %s: %s"):format(name, ok and "succeeded" or "failed", tostring(first)), 2)
    end
    return first, second
end

local operations = {}
local function operation(run) operations[#operations + 1] = run end

operation(function(i) set(i, buffer.new(), "") end)
operation(function(i)
    local content = text()
    set(i, buffer.new(content), content)
end)
operation(function(i)
    local capacity, content = size(), text()
    set(i, buffer.new(capacity, content), content)
    assert(buffers[i]:unfill() >= capacity - #content)
end)
operation(function(i)
    local j = slot()
    local copy = buffer.new(buffers[j])
    set(i, copy, models[j] or "")
end)
operation(function(i)
    local content = text()
    local done = buffers[i]:append(content)
    assert(done == (models[i] ~= nil))
    models[i] = models[i] and models[i] .. content
end)
operation(function(i)
    local j = slot()
    local done = buffers[i]:append(buffers[j])
    assert(done == (models[i] ~= nil))
    models[i] = models[i] and models[i] .. (models[j] or "")
end)
operation(function(i)
    local j, count = slot(), size()
    if take() % 4 == 0 then count = nil end
    local model = models[i] or ""
    local head = buffers[i]:split(count)
    models[i] = models[i] and (count and model:sub(count + 1) or "")
    set(j, head, count and model:sub(1, count) or model)
end)
operation(function(i)
    local count = size()
    buffers[i]:remove(count)
    models[i] = models[i] and models[i]:sub(count + 1)
end)
operation(function(i)
    buffers[i]:clear()
    models[i] = models[i] and ""
end)
operation(function(i)
    if take() % 4 == 0 then
        buffers[i]:release()
        models[i] = nil
    end
    assert(buffers[i]:valid() == (models[i] ~= nil))
end)
operation(function(i)
    local j, offset, count = slot(), size(), size()
    if take() % 4 == 0 then count = nil end
    local model = models[i]
    local allowed = model ~= nil and offset + (count or 0) <= #model
    local part = expect(allowed, "slice", buffers[i], offset, count)
    if allowed then
        set(j, part, count and model:sub(offset + 1, offset + count) or model:sub(offset + 1))
    end
end)
operation(function(i)
    local wanted, from = text():sub(1, 3), size() % 64 + 1
    local place = buffers[i]:find(wanted, from)
    local model = models[i] or ""
    -- Where nothing is looked for there is no common opinion: only the range is checked.
    if wanted ~= "" then
        assert(place == model:find(wanted, from, true))
    else
        assert(place == nil or place >= 1 and place <= #model + 1)
    end
end)
operation(function(i)
    -- What another context gets, and what stays here.
    local j = slot()
    local done, copy = wire_copy(buffers[i])
    assert((done == true) == (models[i] ~= nil), copy)
    if done then set(j, copy, models[i]) end
end)

local WIDTHS = { u8 = 1, u16be = 2, u16le = 2, u32be = 4, u32le = 4 }
local NAMES = { "u8", "u16be", "u16le", "u32be", "u32le" }

local function encoded(name, value)
    local bytes = {}
    for place = 1, WIDTHS[name] do
        bytes[place] = string.char(math.floor(value / 256 ^ (place - 1)) % 256)
    end
    local text_le = table.concat(bytes)
    return name:find "be" and text_le:reverse() or text_le
end

operation(function(i)
    local name, offset, value = NAMES[take() % #NAMES + 1], size(), take()
    local model, width = models[i], WIDTHS[name]
    local allowed = model ~= nil and offset + width <= #model
    expect(allowed, "set_" .. name, buffers[i], offset, value)
    if allowed then
        models[i] = model:sub(1, offset) .. encoded(name, value) .. model:sub(offset + width + 1)
        assert(buffers[i][name](buffers[i], offset) == value)
    end
    expect(allowed, name, buffers[i], offset)
end)
operation(function(i)
    local name, value = NAMES[take() % #NAMES + 1], take()
    expect(models[i] ~= nil, "put_" .. name, buffers[i], value)
    models[i] = models[i] and models[i] .. encoded(name, value)
end)
operation(function(i)
    local model, value = models[i], (take() * 256 + take()) * 2 ^ (take() % 40)
    expect(model ~= nil, "put_varint", buffers[i], value)
    if model then
        local read, behind = buffers[i]:varint(#model)
        assert(read == value and behind == buffers[i]:length())
        models[i] = buffers[i]:tostring()
        assert(models[i]:sub(1, #model) == model)
    end
end)
operation(function(i)
    -- A varint at any place of any content: refused, or within it.
    local ok, _, behind = pcall(buffer.varint, buffers[i], size())
    assert(not ok or behind <= buffers[i]:length())
end)
operation(function(i)
    local count, model = size(), models[i]
    local allowed = model ~= nil and count <= #model
    expect(allowed, "skip", buffers[i], count)
    models[i] = allowed and model:sub(count + 1) or model
end)
operation(function(i)
    local content = text()
    expect(models[i] ~= nil, "put", buffers[i], content)
    models[i] = models[i] and models[i] .. content
end)
operation(function(i)
    expect(models[i] ~= nil, "reset", buffers[i])
    models[i] = models[i] and ""
end)
operation(function(i)
    local byte, from, model = take(), size(), models[i]
    local allowed = model ~= nil and from <= #model
    local offset = expect(allowed, "index_of", buffers[i], byte, from)
    local place = allowed and model:find(string.char(byte), from + 1, true)
    assert(not allowed or offset == (place and place - 1 or nil))
end)
operation(function(i)
    local count = size()
    local place, room = expect(models[i] ~= nil, "reserve", buffers[i], count)
    if models[i] then
        assert(room >= count)
        ffi.fill(place, room, 0x55)
        buffers[i]:commit(count)
        models[i] = models[i] .. ("\x55"):rep(count)
        expect(false, "commit", buffers[i], buffers[i]:unfill() + 1)
    end
end)
operation(function(i)
    local model, offset, count = models[i], size(), size()
    local allowed = model ~= nil and offset + count <= #model
    local part = expect(allowed, "text", buffers[i], offset, count)
    assert(not allowed or part == model:sub(offset + 1, offset + count))
end)
operation(function(i)
    local model, value = models[i], text():sub(1, 200)
    expect(model ~= nil, "pack", buffers[i], "<I2 s1 z", 258, value, "end")
    if model then
        models[i] = model .. "\2\1" .. string.char(#value) .. value .. "end\0"
        local number, read, last, behind = buffers[i]:unpack("<I2 s1 z", #model + 1)
        assert(number == 258 and read == value and last == "end")
        assert(behind == buffers[i]:length() + 1)
    end
end)
operation(function() collectgarbage "step" end)

function fuzz(bytes)
    input, at = bytes, 0
    buffers, models = {}, {}
    for i = 1, SLOTS do
        set(i, buffer.new(), "")
    end
    while at < #input do
        local number = take()
        local i = slot()
        operations[number % #operations + 1](i)
        for j = 1, SLOTS do
            local object, model = buffers[j], models[j]
            if #object ~= #(model or "") or object:tostring() ~= (model or "") then
                error(
                    ("operation %d on %d: slot %d differs"):format(number % #operations + 1, i, j)
                )
            end
            assert(object:unfill() >= 0 and object:valid() == (model ~= nil))
            if model and #model > CONTENT_MAX then set(j, buffer.new(), "") end
        end
    end
end
