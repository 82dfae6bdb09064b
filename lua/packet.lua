-- Module packet: binary layouts declared once, and read and written by code generated for them. See
-- docs/api/packet.md.
--
--     local move = packet.layout { endian = "B", { "id", "u16" }, { "pos", "f32", 2 } }
--     local b = move:encode { id = 7, pos = { 1, 2 } }
--     print(move:decode(b).pos[2], move.get.id(b))  --> 2  7
--
-- Encoding reads all fields before it takes a pointer, and counts what it wrote only at the end: a
-- wrong value leaves the buffer as it was.

local native = ...

local ffi = (native.ffi or require)("ffi")

local env = native.buffer_access()
local FIXED, parts, expand, show = env.FIXED, env.parts, env.expand, env.show

local FIELDS_MAX = 150
local COUNT_MAX = 65535
local UNROLLED_MAX = 8
local LENGTH_OF = { s1 = "u8", s2 = "u16", s4 = "u32" }
local VARINT_BYTES_MAX = 10

-- Failure, at run time: all raise in the caller of the generated function.

local function truncated(buffer, offset, size)
    local length = buffer:length()
    if not buffer:valid() then error("packet: buffer is released", 3) end
    error(
        string.format(
            "packet: %d bytes at offset %s are outside the buffer of %d bytes"
                .. " (offsets count from 0)",
            size, show(offset), length
        ),
        3
    )
end

local function bad_text(field, value, max)
    if type(value) ~= "string" then
        error(string.format('field "%s": string expected, got %s', field, show(value)), 3)
    end
    error(string.format('field "%s": string of %d bytes exceeds %d', field, #value, max), 3)
end

local function bad_array(field, value, count)
    if type(value) ~= "table" then
        error(string.format('field "%s": table expected, got %s', field, show(value)), 3)
    end
    error(string.format('field "%s": %d elements, not %d', field, #value, count), 3)
end

local function bad_index(field, index, count)
    error(string.format('field "%s": index %s is not from 1 to %d', field, show(index), count), 3)
end

local function bad_values(values)
    error("packet: table of fields expected, got " .. type(values), 3)
end

local PREAMBLE = [[
local e, p = ...
local TOKEN, NAN, UNIQUE, scratch, view_t = e.TOKEN, e.NAN, e.UNIQUE, e.scratch, e.view_t
local not_buffer, bad_value, bad_number = e.not_buffer, e.bad_value, e.bad_number
local reserve, to_i64, to_u64, to_zigzag = e.reserve, e.to_i64, e.to_u64, e.to_zigzag
local u16_p, i16_p, u32_p, i32_p = e.u16_p, e.i16_p, e.u32_p, e.i32_p
local u64_p, i64_p, f32_p, f64_p, i8_p = e.u64_p, e.i64_p, e.f32_p, e.f64_p, e.i8_p
local uint32, cast, write_varint, new = e.uint32, e.cast, e.write_varint, e.buffer.new
local varint, zigzag = e.buffer.varint, e.buffer.zigzag
local truncated, bad_text, bad_array = p.truncated, p.bad_text, p.bad_array
local bad_index, bad_values = p.bad_index, p.bad_values
local copy, fill, text_of = p.copy, p.fill, p.text_of
local tobit, band, bswap, rshift, arshift = bit.tobit, bit.band, bit.bswap, bit.rshift, bit.arshift
local getmetatable, tonumber, type, floor = getmetatable, tonumber, type, math.floor
local rawget = rawget
local get, set = {}, {}
]]

local ENTRY = [[
    if getmetatable(buffer) ~= TOKEN then not_buffer(buffer) end
    if offset == nil then offset = 0 end
    local view, at = view_t(buffer), tobit(offset)
    if at ~= offset or at < 0 or at > view.len - $size then truncated(buffer, offset, $size) end
    local base = view.ptr + at
]]

-- Pieces of code for one field. `place` is the expression for its address.

local function load_of(field, place)
    local code = parts(field.kind, field.order)
    local function at_place(text)
        return (text:gsub("%f[%w]bytes%f[%W]", "(" .. place .. ")"))
    end
    return at_place(code.prepare), at_place(code.load)
end

--- Code that checks the expression `given` and stores it.
local function store_of(field, place, given)
    local code = parts(field.kind, field.order)
    local check = expand(code.check, {
        low = code.low, high = code.high, name = 'field \\"' .. field.label .. '\\"',
    })
    local store = code.store:gsub("%f[%w]bytes%f[%W]", "(" .. place .. ")")
    return string.format("do local given = %s\n%s\n%s end", given, check, store)
end

local function decode_fixed(field, at, out)
    local place = "base + " .. at
    if field.kind == "char" then
        out[#out + 1] = string.format(
            "local n = %d while n > 0 and base[%d + n] == 0 do n = n - 1 end\n%s = text_of(%s, n)",
            field.count, at - 1, field.name_local, place
        )
    elseif not field.count then
        local prepare, load = load_of(field, place)
        out[#out + 1] = string.format("%s\n%s = %s", prepare, field.name_local, load)
    elseif field.count <= UNROLLED_MAX then
        local names = {}
        for i = 1, field.count do
            local prepare, load = load_of(field, "base + " .. at + (i - 1) * field.width)
            out[#out + 1] = string.format("%s local x%d = %s", prepare, i, load)
            names[i] = "x" .. i
        end
        out[#out + 1] = string.format("%s = { %s }", field.name_local, table.concat(names, ", "))
    else
        local prepare, load = load_of(field, string.format("base + (%d + i * %d)", at, field.width))
        out[#out + 1] = string.format(
            "%s = {} for i = 0, %d do %s %s[i + 1] = %s end",
            field.name_local, field.count - 1, prepare, field.name_local, load
        )
    end
end

local function encode_fixed(field, at, given, out)
    local place = "base + " .. at
    if field.kind == "char" then
        out[#out + 1] = string.format(
            'if type(%s) ~= "string" or #%s > %d then bad_text(%s, %s, %d) end\n'
                .. "fill(%s, %d) copy(%s, %s, #%s)",
            given, given, field.count, field.quoted, given, field.count,
            place, field.count, place, given, given
        )
    elseif not field.count then
        out[#out + 1] = store_of(field, place, given)
    else
        out[#out + 1] = string.format(
            'if type(%s) ~= "table" or #%s ~= %d then bad_array(%s, %s, %d) end',
            given, given, field.count, field.quoted, given, field.count
        )
        if field.count <= UNROLLED_MAX then
            for i = 1, field.count do
                local element = string.format("rawget(%s, %d)", given, i)
                out[#out + 1] = store_of(field, "base + " .. at + (i - 1) * field.width, element)
            end
        else
            out[#out + 1] = string.format(
                "for i = 0, %d do %s end", field.count - 1,
                store_of(
                    field, string.format("base + (%d + i * %d)", at, field.width),
                    string.format("rawget(%s, i + 1)", given)
                )
            )
        end
    end
end

local function advance(by, out)
    if by > 0 then
        out[#out + 1] = string.format("base, at = base + %d, at + %d", by, by)
    end
end

--- Bytes of fixed size from field number `from` up to the next field of variable size.
local function run_size(fields, from)
    local size = 0
    for i = from, #fields do
        if not fields[i].size then break end
        size = size + fields[i].size
    end
    return size
end

local function decoder(fields)
    local first = run_size(fields, 1)
    local out = { "local function decode(_, buffer, offset)", expand(ENTRY, { size = first }) }
    local names = {}
    for i, field in ipairs(fields) do
        out[#out + 1] = "local " .. field.name_local
        names[i] = string.format("[%s] = %s", field.quoted, field.name_local)
    end
    local at = 0
    for i, field in ipairs(fields) do
        out[#out + 1] = "do"
        if field.size then
            decode_fixed(field, at, out)
            at = at + field.size
        elseif field.length then
            advance(at, out)
            local head = field.length.width
            local prepare, load = load_of(field.length, "base")
            out[#out + 1] = string.format(
                "if at > view.len - %d then truncated(buffer, at, %d) end\n%s local n = %s\n"
                    .. "if n > view.len - %d - at then truncated(buffer, at, n + %d) end\n"
                    .. "%s = text_of(base + %d, n) base, at = base + (%d + n), at + (%d + n)",
                head, head, prepare, load, head, head, field.name_local, head, head, head
            )
            at = 0
        else
            advance(at, out)
            out[#out + 1] = string.format(
                "local value, after = %s(buffer, at)\n"
                    .. "%s, base, at = value, view.ptr + after, after",
                field.kind, field.name_local
            )
            at = 0
        end
        out[#out + 1] = "end"
        local run = not field.size and run_size(fields, i + 1) or 0
        if run > 0 then
            out[#out + 1] =
                string.format("if at > view.len - %d then truncated(buffer, at, %d) end", run, run)
        end
    end
    out[#out + 1] = string.format("return { %s }, at + %d\nend", table.concat(names, ", "), at)
    return table.concat(out, "\n")
end

local function encoder(fields)
    local out = {
        "local function encode(_, values, buffer)",
        'if type(values) ~= "table" then bad_values(values) end',
    }
    local size = 0
    for _, field in ipairs(fields) do
        out[#out + 1] = string.format("local %s = values[%s]", field.name_local, field.quoted)
        size = size + (field.size or field.length and field.length.width or VARINT_BYTES_MAX)
    end
    out[#out + 1] = "local size = " .. size
    for _, field in ipairs(fields) do
        if field.length then
            local name = field.name_local
            out[#out + 1] = string.format(
                'if type(%s) ~= "string" or #%s > %s then bad_text(%s, %s, %s) end\n'
                    .. "size = size + #%s",
                name, name, field.length_max, field.quoted, name, field.length_max, name
            )
        end
    end
    out[#out + 1] = [[
    if buffer == nil then buffer = new(size) end
    if getmetatable(buffer) ~= TOKEN then not_buffer(buffer) end
    local view = view_t(buffer)
    if view.room < size then reserve(buffer, size) end
    local base, at = view.ptr + view.len, 0]]
    local at = 0
    for _, field in ipairs(fields) do
        out[#out + 1] = "do"
        local name = field.name_local
        if field.size then
            encode_fixed(field, at, name, out)
            at = at + field.size
        elseif field.length then
            advance(at, out)
            local head = field.length.width
            out[#out + 1] = string.format(
                "%s\ncopy(base + %d, %s, #%s) base, at = base + (%d + #%s), at + (%d + #%s)",
                store_of(field.length, "base", "#" .. name),
                head, name, name, head, name, head, name
            )
            at = 0
        else
            advance(at, out)
            out[#out + 1] = string.format(
                "local n = write_varint(base, %s(%s, %s)) base, at = base + n, at + n",
                field.kind == "varint" and "p.to_varint" or "p.to_zigzag",
                name, field.quoted
            )
            at = 0
        end
        out[#out + 1] = "end"
    end
    advance(at, out)
    out[#out + 1] = "view.len, view.room = view.len + at, view.room - at\nreturn buffer\nend"
    return table.concat(out, "\n")
end

--- Functions for one field whose offset does not depend on others.
local function accessors(field)
    local element, index = field, ""
    local size, at = field.size, field.offset
    local out = {}
    if field.count and field.kind ~= "char" then
        element = setmetatable({ count = false }, { __index = field })
        index = ", index"
    end
    local check = index == "" and ""
        or string.format(
            "local i = tobit(index or NAN) if i ~= index or i < 1 or i > %d then "
                .. "bad_index(%s, index, %d) end base = base + (i - 1) * %d",
            field.count, field.quoted, field.count, field.width
        )
    local entry = expand(ENTRY, { size = at + size })
    out[#out + 1] = string.format("get[%s] = function(buffer, offset%s)", field.quoted, index)
    out[#out + 1] = entry .. check
    out[#out + 1] = "local " .. field.name_local
    decode_fixed(element, at, out)
    out[#out + 1] = string.format("return %s\nend", field.name_local)
    local order = index == "" and "buffer, offset, value" or "buffer, offset, index, value"
    out[#out + 1] = string.format("set[%s] = function(%s)", field.quoted, order)
    out[#out + 1] = entry
    out[#out + 1] =
        "if band(view.flags, UNIQUE) == 0 then reserve(buffer, 0) base = view.ptr + at end"
    out[#out + 1] = check
    encode_fixed(element, at, "value", out)
    out[#out + 1] = "end"
    return table.concat(out, "\n")
end

local support = {
    truncated = truncated, bad_text = bad_text, bad_array = bad_array, bad_index = bad_index,
    bad_values = bad_values, copy = ffi.copy, fill = ffi.fill, text_of = ffi.string,
    to_varint = function(value, field)
        if type(value) == "number" and value >= 0 and value <= 2 ^ 53 and value % 1 == 0 then
            return value
        end
        return env.to_u64(value, 'field "' .. field .. '"')
    end,
    to_zigzag = function(value, field)
        if type(value) ~= "number" or value % 1 ~= 0 then
            value = env.to_i64(value, 'field "' .. field .. '"')
        end
        return env.to_zigzag(value)
    end,
}

local function is_count(value)
    return type(value) == "number" and value >= 1 and value <= COUNT_MAX and value % 1 == 0
end

--- Checks one line of a declaration, and works out what the generators need to know.
local function field_of(spec, number, order)
    local name, kind, count = spec[1], spec[2], spec[3]
    if type(name) ~= "string" or type(kind) ~= "string" then
        error(string.format("field %d: name and type expected", number), 3)
    end
    local field = {
        name = name, kind = kind, name_local = "v" .. number, quoted = string.format("%q", name),
        label = name:gsub('[%c\\"%%$]', "?"),
    }
    if count ~= nil and not is_count(count) then
        local text = 'field "%s": count %s is not from 1 to %d'
        error(string.format(text, name, show(count), COUNT_MAX), 3)
    end
    if FIXED[kind] then
        field.width = FIXED[kind].width
        field.order = field.width == 1 and "" or order
        field.count = count
        field.size = field.width * (count or 1)
    elseif kind == "char" then
        if not count then error(string.format('field "%s": char needs a count', name), 3) end
        field.count, field.size = count, count
    elseif LENGTH_OF[kind] then
        local length = LENGTH_OF[kind]
        local width = FIXED[length].width
        field.length = {
            kind = length, width = width, order = width == 1 and "" or order, label = field.label,
        }
        field.length_max = width == 4 and "2147483647" or string.format("%d", 256 ^ width - 1)
    elseif kind ~= "varint" and kind ~= "zigzag" then
        error(string.format('field "%s": unknown type "%s"', name, kind), 3)
    end
    if count and not field.size then
        error(string.format('field "%s": type "%s" takes no count', name, kind), 3)
    end
    return field
end

local M = {}

--- Declares a layout: `{ endian = "L" | "B", { name, type[, count] }, ... }`.
function M.layout(specs)
    if type(specs) ~= "table" then error("layout: table expected, got " .. type(specs), 2) end
    local endian = specs.endian or "L"
    if endian ~= "L" and endian ~= "B" then
        error(string.format('layout: endian %s is not "L" or "B"', show(endian)), 2)
    end
    if #specs == 0 or #specs > FIELDS_MAX then
        error(string.format("layout: %d fields, not 1 to %d", #specs, FIELDS_MAX), 2)
    end
    local layout = { offsets = {}, get = {}, set = {} }
    local fields, seen, offset = {}, {}, 0
    local source = { PREAMBLE }
    for i, spec in ipairs(specs) do
        local field = field_of(spec, i, endian == "L" and "le" or "be")
        if seen[field.name] then
            error(string.format('field "%s": declared twice', field.name), 2)
        end
        seen[field.name] = true
        fields[i] = field
        if offset and field.size then
            field.offset = offset
            layout.offsets[field.name] = offset
            source[#source + 1] = accessors(field)
        end
        offset = offset and field.size and offset + field.size
    end
    layout.size = offset or nil
    source[#source + 1] = decoder(fields)
    source[#source + 1] = encoder(fields)
    source[#source + 1] = "return decode, encode, get, set"
    local chunk = assert(loadstring(table.concat(source, "\n"), "=[node-lua] packet"))
    layout.decode, layout.encode, layout.get, layout.set = chunk(env, support)
    return layout
end

return M
