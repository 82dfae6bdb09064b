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

--- Adds code: `text` with values in the place of the names behind `$`.
local function add(out, text, values) out[#out + 1] = gsub(text, "%$(%w+)", values) end

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
    local place, to, count = base .. " + " .. at, field.name_local, field.count
    if field.kind == "char" then
        local text = [[local p = $place $look local n = $count
            while n > 0 and p[n - 1] == 0 do n = n - 1 end
            $to = text_of(p, n)]]
        return add(out, text, { place = place, look = look, count = count, to = to })
    end
    local made = parts(field.kind, field.order)
    local function read(where)
        return format("local p = %s %s %s", pointer_to(field, where), look, made.prepare)
    end
    if not count then
        out[#out + 1] = format("%s %s = %s", read(place), to, made.load)
    elseif count <= UNROLLED_MAX then
        local names = {}
        for i = 1, count do
            local element = format("%s + %d", base, at + (i - 1) * field.width)
            out[#out + 1] = format("local x%d do %s x%d = %s end", i, read(element), i, made.load)
            names[i] = "x" .. i
        end
        out[#out + 1] = format("%s = { %s }", to, concat(names, ", "))
    else
        local element = read(format("%s + (%d + i * %d)", base, at, field.width))
        local text = "$to = {} for i = 0, $last do $read $to[i + 1] = $load end"
        add(out, text, { to = to, last = count - 1, read = element, load = made.load })
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
    local made = parts(length.kind, length.order)
    local text = [[if at > len - $head then truncated(buffer, at, $head, "decode") end
        local p, q = $pointer, base + $head
        $look
        $prepare local n = $load
        if n > len - $head - at then truncated(buffer, at, n + $head, "decode") end
        $to = text_of(q, n) base, at = base + ($head + n), at + ($head + n)]]
    add(out, text, {
        head = length.width,
        pointer = pointer_to(length, "base"),
        look = LOOK,
        prepare = made.prepare,
        load = made.load,
        to = field.name_local,
    })
end

function code.decoder(fields)
    local entry = { size = run_size(fields, 1), name = '"decode"', first = 2, second = 3 }
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
            local text = [[local value, after = get_$kind(buffer, at, "decode")
                $to, base, at = value, base + (after - at), after]]
            add(out, text, { kind = field.kind, to = field.name_local })
            at = 0
        end
        out[#out + 1] = "end"
        local run = not field.size and run_size(fields, i + 1) or 0
        if run > 0 then
            local text = 'if at > len - $run then truncated(buffer, at, $run, "decode") end'
            add(out, text, { run = run })
        end
    end
    out[#out + 1] = format("return { %s }, at + %d\nend", concat(names, ", "), at)
    return concat(out, "\n")
end

-- Writing -----------------------------------------------------------------------------------------

local function add_text_check(field, given, name, max, out)
    local text = [[if type($given) ~= "string" or #$given > $max then
        bad_text($place, $name, $given, $max) end]]
    add(out, text, { given = given, max = max, place = field.place, name = quoted(name) })
end

--- Turns the local variable of a field into what is to be stored, as far as that is one value.
local function convert(field, out)
    local given = field.name_local
    if field.length or field.kind == "char" then
        add_text_check(field, given, "encode", field.length_max or field.count, out)
        if field.length then out[#out + 1] = "size = size + #" .. given end
    elseif field.count then
        local text = [[if type($given) ~= "table" or #$given ~= $count then
            bad_array($place, "encode", $given, $count) end]]
        add(out, text, { given = given, count = field.count, place = field.place })
    elseif field.size then
        local check = check_of(field, "encode")
        out[#out + 1] = format("do local given = %s %s %s = stored end", given, check, given)
    else
        local text = '$given = to_$kind($given, $place, "encode")'
        add(out, text, { given = given, kind = field.kind, place = field.place })
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
        local text = "for i = 0, $last do $check local p = $pointer $look $store end"
        local pointer = pointer_to(field, format("base + (%d + i * %d)", at, field.width))
        add(out, text, {
            last = field.count - 1,
            check = check,
            pointer = pointer,
            look = LOOK_ROOM,
            store = made.store,
        })
    else
        -- Nothing in the loop allocates.
        local text = "local p = $pointer $look for i = 0, $last do $check $store end"
        add(out, text, {
            last = field.count - 1,
            check = check,
            pointer = pointer_to(field, "base + " .. at),
            look = LOOK_ROOM,
            store = gsub(made.store, "p%[0%]", "p[i]"),
        })
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
    local function join(piece)
        group[#group + 1] = piece
        if #group == UNROLLED_MAX then write_group(group, out) end
    end
    if field.kind == "char" then
        join({
            pointer = "base + " .. at,
            store = function(i) return store_text("p" .. i, field, given) end,
        })
    elseif not field.count then
        join({
            pointer = pointer_to(field, "base + " .. at),
            store = function(i) return with(made.store, "p" .. i, given) end,
        })
    elseif field.count <= UNROLLED_MAX then
        local check, text =
            check_of(field, "encode"), "local given = rawget(%s, %d) %s s%d = stored"
        for element = 1, field.count do
            join({
                pointer = pointer_to(field, format("base + %d", at + (element - 1) * field.width)),
                check = function(i) return format(text, given, element, check, i) end,
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
    local length = field.length
    local text = [[do local p, q, stored = $pointer, base + $head, #$given
        $look
        $store copy(q, $given, stored)
        base, at = base + ($head + stored), at + ($head + stored) end]]
    add(out, text, {
        pointer = pointer_to(length, "base"),
        head = length.width,
        given = field.name_local,
        look = LOOK_ROOM,
        store = parts(length.kind, length.order).store,
    })
end

local function encode_varint(field, out)
    local text = [[do local low, high = halves($given)
        $look
        local n = write_varint(base, low, high)
        base, at = base + n, at + n end]]
    add(out, text, { given = field.name_local, look = LOOK_ROOM })
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
    local size, at, quoted_name = field.size, field.offset, field.quoted
    if field.count and field.kind ~= "char" then
        element = setmetatable({ count = false }, { __index = field })
        index = ", index"
    end
    local out = {}
    local function add_entry(name)
        out[#out + 1] = expand(ENTRY, { size = at + size, name = name, first = 1, second = 2 })
        if index == "" then return end
        local text = [[local i = type(index) == "number" and tobit(index) or whole(index)
            if not (i >= 1 and i <= $count) or i ~= index then
            bad_index(3, $name, index, $count) end at = at + (i - 1) * $width]]
        add(out, text, { count = field.count, name = name, width = field.width })
    end
    -- What is read or written there is within what the entry has looked at.
    local last = at + (index == "" and size or field.width)
    out[1] = "do local function read(buffer, offset" .. index .. ")"
    add_entry(quoted("get." .. field.label))
    out[#out + 1] = "local address = view.address\nlocal " .. field.name_local
    local look = "if view.address ~= address or at > view.len - %d then "
        .. "return read(buffer, offset%s) end"
    decode_fixed(element, "view.ptr", "(at + " .. at .. ")", format(look, last, index), out)
    out[#out + 1] = format("return %s\nend get[%s] = read end", field.name_local, quoted_name)

    local name = "set." .. field.label
    out[#out + 1] = format("do local function write(buffer, offset%s, given)", index)
    add_entry(quoted(name))
    local store
    if field.kind == "char" then
        add_text_check(field, "given", name, field.count, out)
        store = store_text("p", field, "given")
    else
        out[#out + 1] = check_of(field, name)
        store = parts(field.kind, field.order).store
    end
    local text = [[if band(view.flags, UNIQUE) == 0 then reserve(buffer, 0, $name) end
        local address = view.address
        local p = $pointer
        if view.address ~= address or at > view.len - $last or band(view.flags, UNIQUE) == 0 then
        return write(buffer, offset$index, given) end]]
    add(out, text, {
        name = quoted(name),
        pointer = pointer_to(field, format("view.ptr + (at + %d)", at)),
        last = last,
        index = index,
    })
    out[#out + 1] = format("%s\nend set[%s] = write end", store, quoted_name)
    return concat(out, "\n")
end

return code
