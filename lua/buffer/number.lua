-- The accessors of numbers of fixed width in buffers, and what module packet needs of them. Loaded
-- with the first of them. Each is generated from one of three templates; see buffer/access.lua for
-- what all of them look at. Most scripts use few of the 54.

local native, env = ...

local ffi = native.ffi("ffi")
local format, gsub, match = string.format, string.gsub, string.match
local setmetatable, type, typeof = setmetatable, type, ffi.typeof
local buffer = native.buffer_methods()
local compile, place = native.compile, env.place

-- Fixed widths. `load` and `store` are for the byte order of this machine, `load_swapped` and
-- `store_swapped` for the other; they see the pointer `p`, and neither they nor `prepare` allocate
-- before the pointer is used. `check` turns `given` into `stored`; `convert`, which may allocate,
-- goes on with that.

local SMALL = [[
    local stored = type(given) == "number" and tobit(given) or whole(given)
    if not (stored >= $low and stored <= $high) or stored ~= given then
        bad_value(given, $where, "$name", "$low", "$high")
    end]]
-- Integers in compiled code are int32: those need no more than the sign looked at.
local U32 = [[
    local stored = type(given) == "number" and tobit(given) or whole_u32(given)
    if not (stored >= 0) or stored ~= given then
        if type(given) ~= "number" or not (given >= 0 and given <= 4294967295)
            or floor(given) ~= given
        then
            bad_value(given, $where, "$name", "0", "4294967295")
        end
        stored = given
    end]]
local FLOAT = [[
    local stored = given
    if type(given) ~= "number" then bad($where, "$name", "number", given) end]]

local FIXED = {
    u8 = { width = 1, low = "0", high = "255", is_bytes = true },
    i8 = { width = 1, pointer = "int8_t *", low = "-128", high = "127" },
    u16 = {
        width = 2,
        pointer = "uint16_t *",
        low = "0",
        high = "65535",
        load_swapped = "rshift(bswap(p[0]), 16)",
        store_swapped = "p[0] = rshift(bswap(stored), 16)",
    },
    i16 = {
        width = 2,
        pointer = "int16_t *",
        low = "-32768",
        high = "32767",
        swapped = "u16",
        load_swapped = "arshift(bswap(p[0]), 16)",
        store_swapped = "p[0] = rshift(bswap(stored), 16)",
    },
    u32 = {
        width = 4,
        pointer = "uint32_t *",
        check = U32,
        swapped = "i32",
        load_swapped = "tonumber(cast(uint32, bswap(p[0])))",
        store_swapped = "p[0] = bswap(stored)",
    },
    i32 = {
        width = 4,
        pointer = "int32_t *",
        low = "-2147483648",
        high = "2147483647",
        load_swapped = "bswap(p[0])",
        store_swapped = "p[0] = bswap(stored)",
    },
    u64 = {
        width = 8,
        pointer = "uint64_t *",
        check = 'local stored = to_u64(given, $where, "$name")',
        allocates = true,
        load_swapped = "bswap(p[0])",
        convert_swapped = "stored = bswap(stored)",
    },
    i64 = {
        width = 8,
        pointer = "int64_t *",
        check = 'local stored = to_i64(given, $where, "$name")',
        allocates = true,
        load_swapped = "bswap(p[0])",
        convert_swapped = "stored = bswap(stored)",
    },
    f32 = {
        width = 4,
        pointer = "float *",
        check = FLOAT,
        swapped = "i32",
        prepare_swapped = "scratch.i32 = bswap(p[0])",
        load_swapped = "scratch.f32",
        store_swapped = "scratch.f32 = stored p[0] = bswap(scratch.i32)",
    },
    f64 = {
        width = 8,
        pointer = "double *",
        check = FLOAT,
        swapped = "u64",
        allocates = true,
        prepare_swapped = "scratch.u64 = bswap(p[0])",
        load_swapped = "scratch.f64",
        convert_swapped = "scratch.f64 = stored stored = bswap(scratch.u64)",
    },
}

local PREAMBLE = [[
local e = ...
local TOKEN, UNIQUE, scratch, view_t = e.TOKEN, e.UNIQUE, e.scratch, e.view_t
local whole, whole_u32 = e.whole, e.whole_u32
local not_buffer, out_of_range, bad_value = e.not_buffer, e.out_of_range, e.bad_value
local bad, reserve, to_i64, to_u64 = e.bad, e.reserve, e.to_i64, e.to_u64
local u16_p, i16_p, u32_p, i32_p = e.u16_p, e.i16_p, e.u32_p, e.i32_p
local u64_p, i64_p, f32_p, f64_p, i8_p = e.u64_p, e.i64_p, e.f32_p, e.f64_p, e.i8_p
local uint32, cast, tobit, band, bswap = e.uint32, e.cast, e.tobit, e.band, e.bswap
local rshift, arshift, getmetatable = e.rshift, e.arshift, e.getmetatable
local tonumber, type, floor = e.tonumber, e.type, e.floor
]]

-- Where the first two begin.
local LOCATE = [[
    if getmetatable(buffer) ~= TOKEN or type(buffer) ~= "userdata" then
        not_buffer(buffer, "$name")
    end
    local view, at = view_t(buffer), type(offset) == "number" and tobit(offset) or whole(offset)
    if not (at >= 0 and at <= view.len - $width) or at ~= offset then
        out_of_range(buffer, offset, $width, "$name")
    end
]]

local GET = [[
local function read(buffer, offset)
    $locate
    local address = view.address
    local p = $open view.ptr + at $close
    if view.address ~= address or at > view.len - $width then return read(buffer, offset) end
    $prepare
    return $load
end
return read
]]

local SET = [[
local function write(buffer, offset, given)
    $locate
    $check
    $convert
    if band(view.flags, UNIQUE) == 0 then reserve(buffer, 0, "$name") end
    local address = view.address
    local p = $open view.ptr + at $close
    if view.address ~= address or at > view.len - $width or band(view.flags, UNIQUE) == 0 then
        return write(buffer, offset, given)
    end
    $store
end
return write
]]

local PUT = [[
local function append(buffer, given, more)
    if getmetatable(buffer) ~= TOKEN or type(buffer) ~= "userdata" then
        not_buffer(buffer, "$name")
    end
    if more or more == false then bad(3, "$name", nil, more) end
    local view = view_t(buffer)
    $check
    $convert
    if view.room < $width then reserve(buffer, $width, "$name") end
    local address, len = view.address, view.len
    local p = $open view.ptr + len $close
    if view.address ~= address or view.len ~= len or view.room < $width then
        return append(buffer, given)
    end
    $store
    view.len = len + $width
    view.room = view.room - $width
    return buffer
end
return append
]]

env.scratch = ffi.new "union { int32_t i32; float f32; uint64_t u64; double f64; }"
env.uint32, env.bswap, env.arshift = ffi.typeof "uint32_t", bit.bswap, bit.arshift
--- What the generated code for a kind and byte order ("le", "be", or "" for one byte) consists of.
--- The type of its pointers is in `env` from then on.
local is_little = ffi.abi "le"
local function parts(kind, order)
    local fixed = FIXED[kind]
    local swapped = order ~= "" and (order == "le") ~= is_little
    local open = ""
    if not fixed.is_bytes then
        local stored = swapped and fixed.swapped or kind
        local pointer = stored .. "_p"
        env[pointer] = env[pointer] or typeof(FIXED[stored].pointer)
        open = format("cast(%s, ", pointer)
    end
    return {
        width = fixed.width,
        low = fixed.low,
        high = fixed.high,
        check = fixed.check or SMALL,
        open = open,
        close = fixed.is_bytes and "" or ")",
        allocates = fixed.allocates,
        convert = swapped and fixed.convert_swapped or "",
        prepare = swapped and fixed.prepare_swapped or "",
        load = swapped and fixed.load_swapped or "p[0]",
        store = swapped and fixed.store_swapped or "p[0] = stored",
    }
end

local function expand(template, values)
    -- Twice: the parts contain placeholders themselves.
    local text = gsub(gsub(template, "%$(%w+)", values), "%$(%w+)", values)
    return text
end

local TEMPLATES = { [""] = GET, set_ = SET, put_ = PUT }

--- Makes the accessor of this name and adds it to the methods; nil if it is not a name of one.
function env.find(_, name)
    if type(name) ~= "string" then return nil end
    local prefix, kind, order = match(name, "^(%l-_?)([uif]%d+)(%l*)$")
    if name == "byte" then
        prefix, kind, order = "", "u8", ""
    end
    local template, fixed = TEMPLATES[prefix], FIXED[kind]
    if not template or not fixed then return nil end
    if fixed.width == 1 and order ~= "" or fixed.width > 1 and order ~= "le" and order ~= "be" then
        return nil
    end
    local values = parts(kind, order)
    values.name, values.where, values.locate = name, prefix == "set_" and "3" or "2", LOCATE
    local accessor = compile(PREAMBLE .. expand(template, values))(env)
    place(name, accessor)
    return accessor
end

env.FIXED, env.parts, env.expand, env.PREAMBLE = FIXED, parts, expand, PREAMBLE
setmetatable(buffer, { __index = env.find })
