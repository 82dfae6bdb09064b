-- What `pairs` shows of the library's modules: functions that are not loaded yet have stand-ins,
-- each of which loads the one that it stands for when it is called. Loaded before code runs that
-- mentions what can look through a table (src/vm/chunk_cache.rs).
--
-- This is the one list of the public functions: whoever adds one adds its name here, or
-- tests/lua/listing_test.lua fails.

local native, core, load_next, loaded = ...

local error, ipairs, next, rawget, rawset = error, ipairs, next, rawget, rawset
local gmatch = string.gmatch
local pcall, status = pcall, jit.status
local on, off = jit.on, jit.off

-- The loops below run once: traces of them would be of no use, and `-jv` would number them.
-- (In a finaliser the VM refuses to be told so, and makes none.)
local was_on = status() and pcall(off)

local CODEC = "array decode encode object"
local NAMES = {
    [core.context] = "check create destroy exit find list log monitor name ncpu node nodes "
        .. "on_error on_signal parent publish query recv register reply run self send stat "
        .. "strerror subscribe thread unregister unsubscribe wait",
    [core.timer] = "close loop now sleep time timeout",
    [core.tcp] = "abort accept close connect connect6 connects fd fd_src get_rwopt is_closed "
        .. "listen listen6 listens local_addr local_port monitor read read_bytes read_into "
        .. "read_until reframe remote_addr remote_port set_keepalive set_nodelay set_rwopt "
        .. "set_write_limit set_wshared shutdown stat write",
    [core.udp] = "close connect fd fd_src is_closed join leave local_addr local_port open open6 "
        .. "read set_broadcast set_ttl set_wshared stat write write6",
}
local function list_codec(module, names)
    if not module then return end
    NAMES[module] = names
    if rawget(module, "null") == nil then rawset(module, "null", (native.data_constants())) end
end
list_codec(core.json, CODEC)
list_codec(core.msgpack, CODEC .. " ext")
if core.tls then
    NAMES[core.tls] = "client server"
    NAMES[core.tcp] = NAMES[core.tcp] .. " start_tls tls"
end
if core.websocket then NAMES[core.websocket] = "accept connect" end
if core.http then NAMES[core.http] = "get post request serve" end
if loaded.udp == nil then loaded.udp = core.udp end
-- Of buffers, beside those in C: what buffer/access.lua has, and what buffer/number.lua makes.
local ACCESS = "commit index_of ptr put put_varint put_zigzag reserve reset skip text varint zigzag"
local KINDS = "u8 i8 u16le u16be i16le i16be u32le u32be i32le i32be u64le u64be i64le i64be "
    .. "f32le f32be f64le f64be"

-- module → name → stand-in; and what it stands for, once that is loaded.
local stubs, originals = {}, {}
core.stubs, core.originals = stubs, originals

-- A stand-in; `find` returns what it stands for.
local function new_stub(name, find)
    local function stub(...) return find(name, stub)(...) end
    return stub
end

for module, names in next, NAMES do
    local placed = {}
    stubs[module] = placed
    local function find(name, stub)
        while not originals[stub] do
            if not load_next(module) then error("'" .. name .. "' is not there", 0) end
        end
        return originals[stub]
    end
    for name in gmatch(names, "%S+") do
        if rawget(module, name) == nil then
            local stub = new_stub(name, find)
            placed[name] = stub
            rawset(module, name, stub)
        end
    end
end

if was_on then on() end

-- What a method of buffers stands for; loads it. `place` notes it (buffer/access.lua).
local function find_accessor(name, stub)
    local known = originals[stub]
    if known then return known end
    local find = native.buffer_access().find
    if not originals[stub] then find(native.buffer_table(), name) end
    return originals[stub]
end

-- A stand-in for one of those; calls of it compile, as `...` would not.
local function new_accessor_stub(name)
    local function stub(a, b, c) return find_accessor(name, stub)(a, b, c) end
    return stub
end

local has_buffer = false

-- Lists the functions of module buffer too if asked.
return function(with_buffer)
    if not with_buffer or has_buffer then return end
    has_buffer = true
    local is_on = status() and pcall(off)
    local buffer = native.buffer_table()
    native.buffer_methods()
    local placed = {}
    native.buffer_stubs, native.stub_originals = placed, originals
    local function place(name)
        if rawget(buffer, name) ~= nil then return end
        placed[name] = new_accessor_stub(name)
        rawset(buffer, name, placed[name])
    end
    place("byte")
    for kind in gmatch(KINDS, "%S+") do
        for _, prefix in ipairs({ "", "set_", "put_" }) do
            place(prefix .. kind)
        end
    end
    -- What is loaded is there, but for what is withheld from a confined context.
    if not native.buffer_access(true) then
        for name in gmatch(ACCESS, "%S+") do
            place(name)
        end
    end
    if is_on then on() end
end
