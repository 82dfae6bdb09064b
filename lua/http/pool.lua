-- The pool of connections to servers. Loaded with the first request.

local native = ...

local next, remove, setmetatable = next, table.remove, setmetatable
local now = native.now

-- The most idle connections for one server, and in all; and how many seconds they are kept.
local KEPT_MAX, KEPT_IN_ALL, KEPT_SECONDS = 8, 64, 60

-- Configuration of TLS (false for none) → server and proxy → list of connections: { key, is_http2,
-- tls, name, since, place }. Those of HTTP/1 are idle; those of HTTP/2 may be in use too.
local pool = setmetatable({}, { __mode = "k" })

-- The idle connections, in the order in which they became so.
local kept, first, last, count = {}, 1, 0, 0

local function take_out(connection)
    local place = connection.place
    if not place then return end
    connection.place, kept[place], count = nil, nil, count - 1
end

-- Closes a connection of the pool.
local function drop(connection)
    take_out(connection)
    native.http_drop(connection.key)
    local by_name = pool[connection.tls]
    local list = by_name and by_name[connection.name]
    if not list then return end
    for i = #list, 1, -1 do
        if list[i] == connection then remove(list, i) end
    end
    if #list == 0 then by_name[connection.name] = nil end
end

local function put_in(connection)
    last, count = last + 1, count + 1
    kept[last], connection.place, connection.since = connection, last, now()
    while count > KEPT_IN_ALL do
        local oldest = kept[first]
        if oldest then drop(oldest) end
        first = first + 1
    end
end

local function add(connection)
    local by_name = pool[connection.tls]
    if not by_name then
        by_name = {}
        pool[connection.tls] = by_name
    end
    local list = by_name[connection.name]
    if not list then
        list = {}
        by_name[connection.name] = list
    end
    list[#list + 1] = connection
    return list
end

local M = {}

--- A connection of the pool for one more request; nil if there is none.
function M.take(tls, name)
    local list = pool[tls] and pool[tls][name]
    for i = list and #list or 0, 1, -1 do
        local one = list[i]
        local is_free = native.http_is_free(one.key)
        if is_free and one.is_http2 then
            take_out(one)
            return one
        elseif is_free and now() - one.since < KEPT_SECONDS then
            take_out(one)
            remove(list, i)
            return one
        elseif is_free == nil or not one.is_http2 then
            drop(one)
        end
    end
end

-- Finds connections of HTTP/2 that are idle because their responses were collected as garbage.
local function find_unused()
    for _, by_name in next, pool do
        for _, list in next, by_name do
            for i = #list, 1, -1 do
                local one = list[i]
                if one and one.is_http2 and not one.place then
                    local is_free, users = native.http_is_free(one.key)
                    if is_free == nil then
                        drop(one)
                    elseif users == 0 then
                        put_in(one)
                    end
                end
            end
        end
    end
end

--- Adds a new connection, which has one request; others may share it if it speaks HTTP/2.
function M.open(connection, tls, name)
    connection.tls, connection.name = tls, name
    if connection.is_http2 then
        find_unused()
        add(connection)
    end
end

--- A request on a connection is over.
function M.keep(connection)
    local is_free, users = native.http_is_free(connection.key)
    if connection.is_http2 then
        if is_free == nil then return drop(connection) end
        if users == 0 and not connection.place then put_in(connection) end
        return
    end
    if not is_free then return native.http_drop(connection.key) end
    local list = add(connection)
    put_in(connection)
    if #list > KEPT_MAX then drop(list[1]) end
end

return M
