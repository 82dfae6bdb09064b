-- The code of packet layouts: text that lua/packet/init.lua compiles. Fields are checked there.
--
-- Finalisers are script code, and run wherever something is allocated, pointers included (see
-- buffer/access.lua). So a piece of generated code makes its pointers first, then looks
-- whether the buffer is still as it was, and uses them before anything else is allocated. If the
-- buffer has changed, it starts over: up to then nothing counts as written. What values there are
-- to write is worked out before, so that a wrong one leaves the buffer as it was.

local env = ...

local parts, expand = env.parts, env.expand
local ipairs, setmetatable = ipairs, setmetatable
local concat, format, gsub = table.concat, string.format, string.gsub

local UNROLLED_MAX = 8
local VARINT_BYTES_MAX = 10

local code = {}

code.preamble = env.PREAMBLE
    .. [[
local bad, truncated, bad_text, bad_array = e.bad, e.truncated, e.bad_text, e.bad_array
local bad_index, copy, fill, text_of, new = e.bad_index, e.copy, e.fill, e.text_of, e.new
local get_varint, get_zigzag, write_varint = e.get_varint, e.get_zigzag, e.write_varint
local to_varint, to_zigzag, halves, rawget = e.to_varint, e.to_zigzag, e.halves, e.rawget
local get, set = {}, {}
]]

local ENTRY = [[
    if getmetatable(buffer) ~= TOKEN or type(buffer) ~= "userdata" then
        bad($first, $name, "buffer", buffer)
    end
    if not offset and offset == nil then offset = 0 end
    local view, at = view_t(buffer), type(offset) == "number" and tobit(offset) or whole(offset)
    if not (at >= 0 and at <= view.len - $size) or at ~= offset then
        truncated(buffer, offset, $size, $name, $second)
    end]]

-- What stands between pointers and their use, in what reads, and in what appends.
local LOOK =
    "if view.address ~= address or view.len ~= len then return decode(_, buffer, offset) end"
local LOOK_ROOM = "if view.address ~= address or view.len ~= len or view.room < size then "
    .. "return encode(_, values, buffer) end"

local function with(text, pointer, stored)
    text = gsub(text, "%f[%w_]p%f[^%w_]", pointer)
    if stored then text = gsub(text, "%f[%w_]stored%f[^%w_]", stored) end
    return text
end

local function quoted(text) return format("%q", text) end

--- Code that checks `given`, and leaves what is to be stored in `stored`.
local function check_of(field, name)
    local made = parts(field.kind, field.order)
    local values = { low = made.low, high = made.high, name = name, where = field.place }
    return expand(made.check, values) .. " " .. made.convert
end

--- The expression for a pointer to a field of this kind, at the address `place`.
local function pointer_to(field, place)
    if field.kind == "char" then return place end
    local made = parts(field.kind, field.order)
    return made.open .. place .. made.close
end

-- Reading -----------------------------------------------------------------------------------------

--- Reads a field of fixed size into its local variable; `look` stands before what reads.
local function decode_fixed(field, base, at, look, out)
    local place = base .. " + " .. at
    if field.kind == "char" then
        out[#out + 1] = format(
            "local p = %s %s local n = %d while n > 0 and p[n - 1] == 0 do n = n - 1 end\n"
                .. "%s = text_of(p, n)",
            place,
            look,
            field.count,
            field.name_local
        )
        return
    end
    local made = parts(field.kind, field.order)
    local function read(where)
        return format("local p = %s %s %s", pointer_to(field, where), look, made.prepare)
    end
    if not field.count then
        out[#out + 1] = format("%s %s = %s", read(place), field.name_local, made.load)
    elseif field.count <= UNROLLED_MAX then
        local names = {}
        for i = 1, field.count do
            local element = format("%s + %d", base, at + (i - 1) * field.width)
            out[#out + 1] = format("local x%d do %s x%d = %s end", i, read(element), i, made.load)
            names[i] = "x" .. i
        end
        out[#out + 1] = format("%s = { %s }", field.name_local, concat(names, ", "))
    else
        local element = format("%s + (%d + i * %d)", base, at, field.width)
        out[#out + 1] = format(
            "%s = {} for i = 0, %d do %s %s[i + 1] = %s end",
            field.name_local,
            field.count - 1,
            read(element),
            field.name_local,
            made.load
        )
    end
end

local function advance(by, out)
    if by > 0 then out[#out + 1] = format("base, at = base + %d, at + %d", by, by) end
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

local function decode_text(field, out)
    local length = field.length
    local head, made = length.width, parts(length.kind, length.order)
    out[#out + 1] = format(
        'if at > len - %d then truncated(buffer, at, %d, "decode") end\n'
            .. "local p, q = %s, base + %d\n%s\n%s local n = %s\n"
            .. 'if n > len - %d - at then truncated(buffer, at, n + %d, "decode") end\n'
            .. "%s = text_of(q, n) base, at = base + (%d + n), at + (%d + n)",
        head,
        head,
        pointer_to(length, "base"),
        head,
        LOOK,
        made.prepare,
        made.load,
        head,
        head,
        field.name_local,
        head,
        head
    )
end

function code.decoder(fields)
    local entry = {
        size = run_size(fields, 1),
        name = '"decode"',
        first = 2,
        second = 3,
    }
    local out = {
        "local function decode(_, buffer, offset)",
        expand(ENTRY, entry),
        "local address, len = view.address, view.len",
        "local base = view.ptr + at",
    }
    local names = {}
    for i, field in ipairs(fields) do
        out[#out + 1] = "local " .. field.name_local
        names[i] = format("[%s] = %s", field.quoted, field.name_local)
    end
    local at = 0
    for i, field in ipairs(fields) do
        out[#out + 1] = "do"
        if field.size then
            decode_fixed(field, "base", at, LOOK, out)
            at = at + field.size
        elseif field.length then
            advance(at, out)
            decode_text(field, out)
            at = 0
        else
            advance(at, out)
            out[#out + 1] = format(
                'local value, after = get_%s(buffer, at, "decode")\n'
                    .. "%s, base, at = value, base + (after - at), after",
                field.kind,
                field.name_local
            )
            at = 0
        end
        out[#out + 1] = "end"
        local run = not field.size and run_size(fields, i + 1) or 0
        if run > 0 then
            local text = 'if at > len - %d then truncated(buffer, at, %d, "decode") end'
            out[#out + 1] = format(text, run, run)
        end
    end
    out[#out + 1] = format("return { %s }, at + %d\nend", concat(names, ", "), at)
    return concat(out, "\n")
end

-- Writing -----------------------------------------------------------------------------------------

local function check_array(field, given, name)
    return format(
        'if type(%s) ~= "table" or #%s ~= %d then bad_array(%s, "%s", %s, %d) end',
        given,
        given,
        field.count,
        field.place,
        name,
        given,
        field.count
    )
end

local function check_text(field, given, name, max)
    return format(
        'if type(%s) ~= "string" or #%s > %s then bad_text(%s, %s, %s, %s) end',
        given,
        given,
        max,
        field.place,
        quoted(name),
        given,
        max
    )
end

--- Turns the local variable of a field into what is to be stored, as far as that is one value.
local function convert(field, out)
    local given = field.name_local
    if field.length or field.kind == "char" then
        local max = field.length_max or field.count
        out[#out + 1] = check_text(field, given, "encode", max)
        if field.length then out[#out + 1] = "size = size + #" .. given end
    elseif field.count then
        out[#out + 1] = check_array(field, given, "encode")
    elseif field.size then
        out[#out + 1] = format(
            "do local given = %s %s %s = stored end",
            given,
            check_of(field, "encode"),
            given
        )
    else
        local text = '%s = to_%s(%s, %s, "encode")'
        out[#out + 1] = format(text, given, field.kind, given, field.place)
    end
end

local function store_text(pointer, field, given)
    return format("fill(%s, %d) copy(%s, %s, #%s)", pointer, field.count, pointer, given, given)
end

--- Writes an array of more elements than are written out.
local function encode_loop(field, at, out)
    local made = parts(field.kind, field.order)
    local check =
        format("local given = rawget(%s, i + 1) %s", field.name_local, check_of(field, "encode"))
    if made.allocates then
        local element = format("base + (%d + i * %d)", at, field.width)
        out[#out + 1] = format(
            "for i = 0, %d do %s\nlocal p = %s\n%s\n%s end",
            field.count - 1,
            check,
            pointer_to(field, element),
            LOOK_ROOM,
            made.store
        )
    else
        -- Nothing in the loop allocates.
        local store = gsub(made.store, "p%[0%]", "p[i]")
        out[#out + 1] = format(
            "local p = %s %s for i = 0, %d do %s %s end",
            pointer_to(field, "base + " .. at),
            LOOK_ROOM,
            field.count - 1,
            check,
            store
        )
    end
end

--- Pieces of code to be written together: pointers, then one look, then what stores.
local function write_group(group, out)
    if #group == 0 then return end
    out[#out + 1] = "do"
    for i, piece in ipairs(group) do
        if piece.check then out[#out + 1] = format("local s%d do %s end", i, piece.check(i)) end
    end
    for i, piece in ipairs(group) do
        out[#out + 1] = format("local p%d = %s", i, piece.pointer)
    end
    out[#out + 1] = LOOK_ROOM
    for i, piece in ipairs(group) do
        out[#out + 1] = piece.store(i)
    end
    out[#out + 1] = "end"
    for i = #group, 1, -1 do
        group[i] = nil
    end
end

--- Adds what writes a field of fixed size to the group; full groups are written.
local function encode_fixed(field, at, group, out)
    local given = field.name_local
    local made = field.kind ~= "char" and parts(field.kind, field.order)
    local function add(piece)
        group[#group + 1] = piece
        if #group == UNROLLED_MAX then write_group(group, out) end
    end
    if field.kind == "char" then
        add({
            pointer = "base + " .. at,
            store = function(i) return store_text("p" .. i, field, given) end,
        })
    elseif not field.count then
        add({
            pointer = pointer_to(field, "base + " .. at),
            store = function(i) return with(made.store, "p" .. i, given) end,
        })
    elseif field.count <= UNROLLED_MAX then
        for element = 1, field.count do
            add({
                pointer = pointer_to(field, format("base + %d", at + (element - 1) * field.width)),
                check = function(i)
                    local check = check_of(field, "encode")
                    return format(
                        "local given = rawget(%s, %d) %s s%d = stored",
                        given,
                        element,
                        check,
                        i
                    )
                end,
                store = function(i) return with(made.store, "p" .. i, "s" .. i) end,
            })
        end
    else
        write_group(group, out)
        out[#out + 1] = "do"
        encode_loop(field, at, out)
        out[#out + 1] = "end"
    end
end

local function encode_text(field, out)
    local length, given = field.length, field.name_local
    local head, made = length.width, parts(length.kind, length.order)
    out[#out + 1] = format(
        "do local p, q, stored = %s, base + %d, #%s\n%s\n%s copy(q, %s, stored)\n"
            .. "base, at = base + (%d + stored), at + (%d + stored) end",
        pointer_to(length, "base"),
        head,
        given,
        LOOK_ROOM,
        made.store,
        given,
        head,
        head
    )
end

local function encode_varint(field, out)
    out[#out + 1] = format(
        "do local low, high = halves(%s)\n%s\nlocal n = write_varint(base, low, high)\n"
            .. "base, at = base + n, at + n end",
        field.name_local,
        LOOK_ROOM
    )
end

function code.encoder(fields)
    local out = {
        "local function encode(_, values, buffer)",
        'if type(values) ~= "table" then',
        '    bad(2, "encode", "table of fields, as in layout:encode(fields),", values) end',
    }
    local size = 0
    for _, field in ipairs(fields) do
        out[#out + 1] = format("local %s = values[%s]", field.name_local, field.quoted)
        size = size + (field.size or field.length and field.length.width or VARINT_BYTES_MAX)
    end
    out[#out + 1] = "local size = " .. size
    for _, field in ipairs(fields) do
        convert(field, out)
    end
    out[#out + 1] = [[
    if not buffer and buffer == nil then buffer = new(size) end
    if getmetatable(buffer) ~= TOKEN or type(buffer) ~= "userdata" then
        bad(3, "encode", "buffer", buffer)
    end
    local view = view_t(buffer)
    if view.room < size then reserve(buffer, size, "encode") end
    local address, len, at = view.address, view.len, 0
    local base = view.ptr + len]]
    local at, group = 0, {}
    for _, field in ipairs(fields) do
        if field.size then
            encode_fixed(field, at, group, out)
            at = at + field.size
        else
            write_group(group, out)
            advance(at, out)
            if field.length then
                encode_text(field, out)
            else
                encode_varint(field, out)
            end
            at = 0
        end
    end
    write_group(group, out)
    advance(at, out)
    out[#out + 1] = LOOK_ROOM
    out[#out + 1] = "view.len, view.room = len + at, view.room - at\nreturn buffer\nend"
    return concat(out, "\n")
end

-- Single fields -----------------------------------------------------------------------------------

--- Functions for one field whose offset does not depend on others.
function code.accessors(field)
    local element, index = field, ""
    local size, at = field.size, field.offset
    if field.count and field.kind ~= "char" then
        element = setmetatable({ count = false }, { __index = field })
        index = ", index"
    end
    local function check_index(name)
        if index == "" then return "" end
        return format(
            'local i = type(index) == "number" and tobit(index) or whole(index)\n'
                .. "if not (i >= 1 and i <= %d) or i ~= index then "
                .. "bad_index(3, %s, index, %d) end at = at + (i - 1) * %d",
            field.count,
            name,
            field.count,
            field.width
        )
    end
    local function entry(name)
        return expand(ENTRY, {
            size = at + size,
            name = name,
            first = 1,
            second = 2,
        })
    end
    -- What is read or written there is within what the entry has looked at.
    local last = at + (index == "" and size or field.width)
    local name = quoted("get." .. field.label)
    local out = {
        "do local function read(buffer, offset" .. index .. ")",
        entry(name),
        check_index(name),
        "local address = view.address",
        "local " .. field.name_local,
    }
    local look = format(
        "if view.address ~= address or at > view.len - %d then return read(buffer, offset%s) end",
        last,
        index
    )
    decode_fixed(element, "view.ptr", "(at + " .. at .. ")", look, out)
    out[#out + 1] = format("return %s\nend get[%s] = read end", field.name_local, field.quoted)

    name = "set." .. field.label
    out[#out + 1] = format("do local function write(buffer, offset%s, given)", index)
    out[#out + 1] = entry(quoted(name)) .. "\n" .. check_index(quoted(name))
    local store
    if field.kind == "char" then
        out[#out + 1] = check_text(field, "given", name, field.count)
        store = store_text("p", field, "given")
    else
        out[#out + 1] = check_of(field, name)
        store = parts(field.kind, field.order).store
    end
    out[#out + 1] = format(
        "if band(view.flags, UNIQUE) == 0 then reserve(buffer, 0, %s) end\n"
            .. "local address = view.address\nlocal p = %s\n"
            .. "if view.address ~= address or at > view.len - %d "
            .. "or band(view.flags, UNIQUE) == 0 then\nreturn write(buffer, offset%s, given) end",
        quoted(name),
        pointer_to(field, format("view.ptr + (at + %d)", at)),
        last,
        index
    )
    out[#out + 1] = format("%s\nend set[%s] = write end", store, field.quoted)
    return concat(out, "\n")
end

return code
