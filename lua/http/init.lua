-- Module http: servers and clients. See docs/api/http.md. What is here loads the rest.

local native, core = ...

core.load_all(core.tcp)

local server -- what http/server.lua returns, once somebody serves

local M = {}

--- Serves HTTP: calls the handler, in a coroutine of its own, for each request.
---@param where string|userdata an address, or a listen socket
---@param ... any port, if it is an address; options; handler(req, res)
---@return boolean ok, table|integer server or code
function M.serve(where, ...)
    server = server or native.load("http/server")(native, core)
    return server.serve(where, ...)
end

local client -- what http/client.lua returns, once somebody asks for something

local function load_client()
    client = client or native.load("http/client")(native, core)
    return client
end

--- Sends a request, and waits for the head of its answer.
---@param options table url, method, headers, body, timeout, tls, redirect, max_redirects, proxy
---@return boolean ok, table|integer response or code
---@return string|nil text
function M.request(options, ...) return load_client().request(options, ...) end

--- Gets what is at a URL.
---@param url string
---@param options? table
---@return boolean ok, table|integer response or code
---@return string|nil text
function M.get(url, ...) return load_client().get(url, ...) end

--- Sends a body to a URL.
---@param url string
---@param body string|userdata|function
---@param options? table
---@return boolean ok, table|integer response or code
---@return string|nil text
function M.post(url, body, ...) return load_client().post(url, body, ...) end

return M
