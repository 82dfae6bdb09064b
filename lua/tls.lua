-- Module tls: configurations for tcp.start_tls. See docs/api/tls.md.
--
--     local client = context.check(tls.client({}))
--     context.check(sock:start_tls(client, "example.org", 5))
--
-- What is in files and texts is looked at in src/tls; here is what scripts pass.

local native, core = ...

local bad, bad_because, no_more = native.bad, native.bad_because, core.no_more
local check_plain = native.check_plain
local next, type = next, type
local char, format, find, gsub = string.char, string.format, string.find, string.gsub
local lower = string.lower
local concat, sort, unpack = table.concat, table.sort, unpack
local checks = native.load("core/options")(native)
local check_boolean, check_fields, check_list = checks.boolean, checks.fields, checks.list
local check_options = checks.check

local ALPN_MAX, ALPN_BYTES_MAX = 255, 65535

local M = {}

local CLIENT = {
    ca = true,
    cert = true,
    key = true,
    alpn = true,
    verify = true,
    min_version = true,
}
local SERVER = {
    cert = true,
    key = true,
    sni = true,
    client_ca = true,
    client_optional = true,
    alpn = true,
    min_version = true,
}

-- A file or a text, or nil.
local function check_source(value, option, name)
    if type(value) == "nil" then return end
    if type(value) ~= "string" or value == "" then
        bad(option, name, "path of a PEM file, or its text,", value)
    end
    if find(value, "\0", 1, true) then
        bad(option, name, "path or text without a zero byte", value)
    end
    return value
end

-- A certificate and its key, which may be in the same file.
local function check_identity(cert, key, option, name)
    check_source(cert, option .. "cert", name)
    check_source(key, option .. "key", name)
    if type(key) ~= "nil" and type(cert) == "nil" then
        bad(option .. "cert", name, "path of a PEM file, or its text, with the key", cert)
    end
    return cert, key or cert
end

-- Protocols, each behind its length.
local function check_alpn(list, name)
    if type(list) == "nil" then return "" end
    local parts, bytes = {}, 0
    for i = 1, check_list(list, "list of protocol names", "alpn", name) do
        local protocol = list[i]
        if type(protocol) ~= "string" or protocol == "" or #protocol > ALPN_MAX then
            bad(format("alpn[%d]", i), name, format("name of 1 to %d bytes", ALPN_MAX), protocol)
        end
        parts[i] = char(#protocol) .. protocol
        bytes = bytes + #parts[i]
    end
    if bytes > ALPN_BYTES_MAX then
        bad_because("alpn", name, format("%d bytes of names, %d at most", bytes, ALPN_BYTES_MAX))
    end
    return concat(parts)
end

local VERSIONS = { ["1.2"] = "1.2", ["1.3"] = "1.3", [1.2] = "1.2", [1.3] = "1.3" }

-- Whether only TLS 1.3 is to be spoken.
local function check_version(value, name)
    if type(value) == "nil" then return false end
    local version = VERSIONS[value]
    if not version then bad("min_version", name, '"1.2" or "1.3"', value) end
    return version == "1.3"
end

local function finish(config, code, text)
    if config then return true, config end
    return false, code, text
end

--- For connections that this side opens.
---@param options table { ca =, cert =, key =, alpn =, verify =, min_version = }
---@return boolean ok, userdata|integer configuration or code
---@return string|nil text
function M.client(options, ...)
    no_more(2, "client", ...)
    check_options(options, CLIENT, 1, "client")
    local ca = check_source(options.ca, "ca", "client")
    if ca == "system" then ca = nil end
    local cert, key = check_identity(options.cert, options.key, "", "client")
    local alpn = check_alpn(options.alpn, "client")
    local verify = check_boolean(options.verify, "verify", "client", true)
    local is_new = check_version(options.min_version, "client")
    return finish(native.tls_client(ca, cert, key, alpn, is_new, verify))
end

-- As a pair without names is given: the certificate and the key by their places.
local IDENTITY, PAIR = { cert = true, key = true }, { true, true }

-- name → { cert =, key = } or { cert, key }, one after the other.
local function check_sni(names)
    if type(names) == "nil" then return {} end
    if type(names) ~= "table" then
        bad("sni", "server", "table of names with { cert =, key = }", names)
    end
    check_plain("sni", "server", names)
    local list = {}
    for name, identity in next, names do
        if type(name) ~= "string" or not native.tls_is_name((gsub(name, "^%*%.", ""))) then
            bad("sni", "server", "host names as keys", name)
        end
        if type(identity) ~= "table" then
            bad(format("sni['%s']", name), "server", "table { cert =, key = }", identity)
        end
        check_plain(format("sni['%s']", name), "server", identity)
        local known = identity[1] ~= nil and PAIR or IDENTITY
        check_fields(identity, known, format("sni['%s']", name), "server")
        local option = format("sni['%s'].", name)
        local cert, key = identity.cert or identity[1], identity.key or identity[2]
        cert, key = check_identity(cert, key, option, "server")
        if type(cert) == "nil" then
            bad(option .. "cert", "server", "path of a PEM file, or its text,")
        end
        list[#list + 1] = { lower(name), cert, key }
    end
    -- The same names are the same configuration, in whatever order they come.
    sort(list, function(a, b) return a[1] < b[1] end)
    local flat = {}
    for i = 1, #list do
        local n = #flat
        flat[n + 1], flat[n + 2], flat[n + 3] = unpack(list[i], 1, 3)
    end
    return flat
end

--- For connections that others open.
---@param options table { cert =, key =, sni =, client_ca =, client_optional =, alpn =, … }
---@return boolean ok, userdata|integer configuration or code
---@return string|nil text
function M.server(options, ...)
    no_more(2, "server", ...)
    check_options(options, SERVER, 1, "server")
    local cert, key = check_identity(options.cert, options.key, "", "server")
    local names = check_sni(options.sni)
    if type(cert) == "nil" and not names[1] then
        bad_because(1, "server", "no certificate: 'cert' and 'key' expected, or 'sni'")
    end
    local client_ca = check_source(options.client_ca, "client_ca", "server")
    local optional = options.client_optional
    optional = check_boolean(optional, "client_optional", "server", false)
    if optional and type(client_ca) == "nil" then
        bad_because("client_optional", "server", "of no use without 'client_ca'")
    end
    local alpn = check_alpn(options.alpn, "server")
    local is_new = check_version(options.min_version, "server")
    return finish(native.tls_server(client_ca, cert, key, alpn, is_new, optional, unpack(names)))
end

return M
