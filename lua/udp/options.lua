-- Options, figures, methods and the text of datagram sockets.

local native, core, udp, records, check = ...

local format, next, tonumber, type = string.format, next, tonumber, type
local bad = core.bad

local BROADCAST, TTL, TTL_MAX = 1, 2, 255

-- What a native has returned: nothing, or a code.
local function result(code)
    if code then return false, code end
    return true
end

local flag, no_more = core.flag, core.no_more

--- Lets other contexts write to the socket by its fd, or stops that.
---@param socket userdata
---@param on boolean
function udp.set_wshared(socket, ...)
    native.set_wshared(check(socket, "set_wshared").id, flag("set_wshared", ...))
end

--- Lets the socket send to all of a network, or stops that.
---@param socket userdata
---@param on boolean
---@return boolean ok, integer|nil code
function udp.set_broadcast(socket, ...)
    local record = check(socket, "set_broadcast")
    return result(native.udp_set(record.id, BROADCAST, flag("set_broadcast", ...)))
end

--- Sets how many routers a datagram may pass, to groups too.
---@param socket userdata
---@param count integer
---@return boolean ok, integer|nil code
function udp.set_ttl(socket, count, ...)
    local record = check(socket, "set_ttl")
    local number = type(count) == "number" and count or type(count) == "string" and tonumber(count)
    if not number or number % 1 ~= 0 or number < 1 or number > TTL_MAX then
        bad(2, "set_ttl", format("integer from 1 to %d", TTL_MAX), count)
    end
    no_more(3, "set_ttl", ...)
    return result(native.udp_set(record.id, TTL, number))
end

local function member(name, on)
    return function(socket, group, interface, ...)
        local record = check(socket, name)
        if type(group) ~= "string" then bad(2, name, "multicast address", group) end
        local kind = type(interface)
        if type(interface) ~= "nil" and kind ~= "string" and kind ~= "number" then
            bad(3, name, "address, name or number of an interface", interface)
        end
        if kind == "number" and (interface % 1 ~= 0 or interface < 0 or interface >= 2 ^ 31) then
            bad(3, name, "address, name or number of an interface", interface)
        end
        no_more(4, name, ...)
        local code, is_wrong = native.udp_join(record.id, group, interface, on)
        if is_wrong then bad(2, name, "multicast address", group) end
        return result(code)
    end
end

--- Receives what is sent to a group from now on; on an interface, by which the socket then sends to
--- groups too, if one is named.
---@param socket userdata
---@param group string multicast address
---@param interface? string|integer an address of it, its name or number
---@return boolean ok, integer|nil code
udp.join = member("join", true)

--- Does so no more.
udp.leave = member("leave", false)

--- Figures of a socket, in datagrams; an empty table for a closed one.
---@param socket userdata
---@return table
function udp.stat(socket)
    local record = records[socket]
    if record == nil then bad(1, "stat", "udp socket", socket) end
    if record.closed then return {} end
    local received, dropped, sent, failed = native.udp_stat(record.id)
    return { received = received, dropped = dropped, sent = sent, failed = failed }
end

local function address_of(which, name)
    return function(socket)
        local record = records[socket]
        if record == nil then bad(1, name, "udp socket", socket) end
        if not record.closed then return native.address(record.id, which) end
    end
end

udp.local_addr, udp.local_port = address_of(1, "local_addr"), address_of(2, "local_port")

-- Kind, address in memory, addresses and state.
local function describe(socket)
    local record = records[socket]
    if record == nil then return "udp socket" end
    if record.closed then return format("udp socket %p: closed", socket) end
    local where = native.address(record.id, 5) or "?"
    if record.connected then where = where .. " -> " .. (native.address(record.id, 6) or "?") end
    return format("udp socket %p: %s, open", socket, where)
end

local methods = {}
for name, f in next, udp do
    if name ~= "open" and name ~= "open6" and name ~= "fd_src" then methods[name] = f end
end

native.set_socket_methods(3, methods, describe)
