-- TLS on sockets. Loaded when the first of these functions is called.

local native, core, sockets = ...

local select, type = select, type
local bad, raise = core.bad, core.raise
local timeout_of, strerror = core.timeout_of, native.strerror
local register, cancel, set_timeout = core.register, core.cancel, core.set_timeout
local suspend, check_may_wait = core.suspend, core.check_may_wait
local paths, check_stream, check_open = sockets.paths, sockets.check_stream, sockets.check_open

local SOCKET_CLOSED, TIMEOUT, TLS_FAILED = 203, 208, 220

local tls = {}

-- Whom a client wants to reach: who it says, or else the address that it has connected to.
local function check_name(record, is_server, name)
    if is_server then
        if type(name) ~= "nil" then
            bad(3, "start_tls", "no name, since clients name servers,", name)
        end
        return
    end
    if type(name) == "nil" then
        name = not paths[record] and native.address(record.id, 3) or nil
        if type(name) == "nil" then bad(3, "start_tls", "host name to verify", name) end
    end
    if type(name) ~= "string" or not native.tls_is_name(name) then
        bad(3, "start_tls", "host name or IP address to verify", name)
    end
    return name
end

--- Encrypts the connection from now on; whether as client or server says the configuration.
---@param socket userdata
---@param config userdata what tls.client or tls.server has returned
---@param ... any name of the server to verify, timeout in seconds
---@return boolean ok, userdata|integer socket or code
---@return string|nil text
function tls.start_tls(socket, config, ...)
    local record = check_stream(socket, "start_tls")
    check_open(record, SOCKET_CLOSED, "start_tls")
    local is_server = native.tls_is_server(config)
    if is_server == nil then
        bad(2, "start_tls", "TLS configuration (tls.client, tls.server)", config)
    end
    local n = select("#", ...)
    local name, seconds = ...
    local position = 4
    if n == 1 and type(name) == "number" then
        name, seconds, position, n = nil, name, 3, 2
    end
    core.no_more(5, "start_tls", select(3, ...))
    name = check_name(record, is_server, name)
    local timeout = n == 2 and timeout_of(seconds, position, "start_tls") or 0
    if native.tls_has(record.id) then raise("'start_tls' on a connection that has TLS already") end
    if timeout < 0 then return false, TIMEOUT, strerror(TIMEOUT) end
    check_may_wait()
    if record.head < record.tail then
        local text = "what came before the handshake was not read: it cannot be told from that"
        return false, TLS_FAILED, text
    end
    local token = register()
    local code, text = native.tls_start(record.id, token, config, name)
    if code then
        cancel(token)
        return false, code, text
    end
    set_timeout(token, timeout)
    local ok, value = suspend()
    if ok then return true, socket end
    if record.closed then return false, value, strerror(value) end
    if value == TIMEOUT then native.tls_cancel(record.id) end
    return false, value, value ~= TIMEOUT and native.tls_failure(record.id) or strerror(value)
end

--- What TLS on the connection has come to; nil without.
---@param socket userdata
---@return table|nil
function tls.tls(socket)
    local record = check_stream(socket, "tls")
    if record.closed then return end
    return native.tls_details(record.id)
end

return tls
