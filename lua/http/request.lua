-- The requests and responses of handlers. Loaded with the first server.

local native, core, message = ...

local getmetatable = debug.getmetatable
local rawget, rawset, setmetatable = rawget, rawset, setmetatable
local next, pcall, rawequal, tonumber, type = next, pcall, rawequal, tonumber, type
local find, lower, match = string.find, string.lower, string.match
local bad, raise, strerror = core.bad, core.raise, native.strerror
local register, cancel, suspend = core.register, core.cancel, core.suspend
local check_may_wait, no_more = core.check_may_wait, core.no_more
local http_get, http_write = native.http_get, native.http_write
local waiting = message.waiting

local ABORTED, INVALID = 11, 18

-- What is known of a request that is not over: its number, whether a method of `res` was used, and
-- the objects that scripts have, which show nothing of this.
local ID, USED, REQ, RES = 1, 2, 3, 4
local records = {} -- by both objects
-- The record of those that are over: no request has number 0.
local OVER = { 0, true, false, false }
-- Responses that have become WebSockets.
local upgraded = setmetatable({}, { __mode = "k" })
local UPGRADED = {} -- in the place of USED

local function id_of(object)
    local record = records[object]
    return record and record[ID] or 0
end

local bodies = message.bodies(
    function(req, token) return native.http_read(id_of(req), token) end,
    nil,
    function(req) native.http_give_up(id_of(req)) end
)
local request, response = {}, {}
local Request, Response = {}, {}

-- Fields that are filled in on demand, with their numbers in src/lua/http/request.rs.
local FIELDS = { method = 1, path = 2, query = 3, version = 4, remote_addr = 5, remote_port = 6 }

local check_request -- see below
local parse_pairs -- what http/args.lua returns, once it is needed

local function parse(text)
    parse_pairs = parse_pairs or native.load("http/args")()
    return parse_pairs(text)
end

--- What the query says: names with their values, decoded; a list where a name comes more than once.
--- Called as `req:args()`, or `req.args()`.
---@return table
local function args_of(req)
    return function(this)
        if this and not rawequal(this, req) then check_request(this, "args") end
        local query = (this or req).query
        return parse(type(query) == "string" and query or "")
    end
end

function Request.__index(req, name)
    local method = request[name]
    if method then return method end
    local which = FIELDS[name]
    local value
    if which then
        value = http_get(id_of(req), which)
        if which == 6 then value = tonumber(value) end
    elseif name == "headers" then
        value = message.new_headers(native.http_headers(id_of(req)))
    elseif name == "chunks" then
        value = bodies.chunks(req)
    elseif name == "trailers" then
        -- They arrive behind the body.
        return message.new_headers(native.http_headers(id_of(req), true))
    elseif name == "args" then
        value = args_of(req)
    elseif name == "tls" and native.http_tls then
        value = native.http_tls(id_of(req))
    end
    if value ~= nil then rawset(req, name, value) end
    return value
end

Response.__index = response
Request.__metatable, Response.__metatable = false, false

-- The record of an object that has this metatable; nothing for others.
local function record_of(object, metatable)
    local record = records[object]
    if type(object) ~= "table" or getmetatable(object) ~= metatable then return end
    return record or OVER
end

function check_request(req, name)
    local record = record_of(req, Request)
    if not record then bad(1, name, "request", req) end
    return record[ID]
end

local function check_response(res, name)
    local record = record_of(res, Response)
    if not record then bad(1, name, "answer of a request", res) end
    return record[ID], record
end

request.read = bodies.reader("read", check_request)
request.body = bodies.collector("body", check_request)
request.text = bodies.collector("text", check_request)
request.json = bodies.collector("json", check_request)

local collect_form = bodies.collector("form", check_request)

--- What a form says: names with their values, as those of the query.
---@param req table
---@param ... integer bytes of the body at most
---@return table|boolean, integer|nil code, string|nil text
function request.form(req, ...)
    local headers = native.http_headers(check_request(req, "form"))
    local kind = headers and headers["content-type"]
    if kind and not find(lower(kind), "^%s*application/x%-www%-form%-urlencoded%s*%f[;%z]") then
        return false, INVALID, "no form, but " .. kind
    end
    local text, code, why = collect_form(req, ...)
    if not text then return false, code, why end
    return parse(text)
end

--- Sets the status of an answer that has not begun; 200 if this is not called.
---@param res table
---@param status integer
function response.status(res, status, ...)
    local id, record = check_response(res, "status")
    no_more(3, "status", ...)
    message.check_status(status, 2, "status")
    if not native.http_status(id, status) then raise("'status' after the answer has begun") end
    record[USED] = true
    return res
end

--- Adds a header to an answer that has not begun.
---@param res table
---@param name string
---@param value string|number|table
function response.header(res, name, value, ...)
    local id, record = check_response(res, "header")
    no_more(4, "header", ...)
    if not native.http_header(id, name, value) then raise("'header' after the answer has begun") end
    record[USED] = true
    return res
end

--- Adds a header that follows the body of an answer.
---@param res table
---@param name string
---@param value string|number|table
function response.trailer(res, name, value, ...)
    local id, record = check_response(res, "trailer")
    no_more(4, "trailer", ...)
    if not native.http_trailer(id, name, value) then
        raise("'trailer' after the answer has ended")
    end
    record[USED] = true
    return res
end

-- Writes a piece of a body; waits while there is no room for more. `what` of `name` is to blame if
-- it cannot be written.
local function write(id, data, what, name)
    local token = register()
    local ok, code = http_write(id, data, token)
    if ok == nil and code == nil then
        check_may_wait(token)
        suspend()
        return true
    end
    cancel(token)
    if ok == nil then
        if code == 0 then bad(what, name, "string, number or buffer", data) end
        if code == 1 then raise("'write' after 'sendfile'") end
        native.bad_because(what, name, code)
    end
    return ok, code
end

--- Writes a piece of the body; waits while the client does not keep up.
---@param res table
---@param data string|number|userdata
---@return boolean ok, integer|nil code
function response.write(res, data, ...)
    local id, record = check_response(res, "write")
    no_more(3, "write", ...)
    if type(data) == "nil" then bad(2, "write", "string, number or buffer", data) end
    record[USED] = true
    return write(id, data, 2, "write")
end

-- Ends a request; a read of its body that waits fails.
local function leave(record)
    local req = record[REQ]
    if not req then return end
    record[ID] = 0
    records[req], records[record[RES]] = nil, nil
    if waiting[req] then message.forget(req, ABORTED) end
end

-- Ends an answer. Raises, as the fault of the function `by`, if the body does not have the length
-- that was announced.
local function finish(record, has_failed, by)
    local is_sent, why = native.http_finish(record[ID], nil, has_failed)
    leave(record)
    if not is_sent then raise(why, by) end
end

-- The same with `data` as the last piece of the body, for the method of this name.
local function finish_with(record, data, name)
    local is_open = record[ID] ~= 0
    local is_sent, why = native.http_finish(record[ID], data, false)
    if is_sent == false then
        if not why then raise("'" .. name .. "' with a body after 'sendfile'") end
        native.bad_because(2, name, why)
    end
    if not is_sent and not why then bad(2, name, "string, number or buffer", data) end
    leave(record)
    if why then raise(why) end
    return is_open
end

--- Ends the answer, with a last piece of the body if there is one.
---@param res table
---@param data? string|number|userdata
function response.finish(res, data, ...)
    local _, record = check_response(res, "finish")
    no_more(3, "finish", ...)
    record[USED] = true
    return finish_with(record, data, "finish")
end

--- Ends the answer with a value in JSON.
---@param res table
---@param value any
function response.json(res, value, ...)
    local id, record = check_response(res, "json")
    no_more(3, "json", ...)
    if not native.json_encode then raise("'json' is not in this build of node-lua") end
    local ok, text = pcall(native.json_encode, value)
    if not ok then raise("json: " .. (match(text, "encode: (.*)$") or text)) end
    if id ~= 0 and not native.http_default_type(id) then
        raise("'json' after the answer has begun")
    end
    record[USED] = true
    return finish_with(record, text, "json")
end

--- Answers with a file, or with the part of it, or the news, that the client asks for.
---@param res table
---@param path string
---@return boolean ok, integer|nil code, string|nil text
function response.sendfile(res, path, ...)
    local id, record = check_response(res, "sendfile")
    no_more(3, "sendfile", ...)
    if type(path) ~= "string" or find(path, "\0", 1, true) then
        bad(2, "sendfile", "path of a file", path)
    end
    record[USED] = true
    if id == 0 then raise("'sendfile' after the answer has ended") end
    local ok, code = native.http_sendfile(id, path)
    if ok then return true end
    if ok == nil and code then native.bad_because(2, "sendfile", code) end
    if ok == nil then raise("'sendfile' after the answer has begun") end
    return false, code, strerror(code) .. ": " .. path
end

-- Sends all pieces of an iterator.
local function send_all(record, body)
    for piece in body do
        local ok, code = write(record[ID], piece, body, "result of the body function of 'serve'")
        if not ok then raise("a body was not taken: " .. strerror(code), body) end
    end
    finish(record, false, body)
end

-- Ends the answer as the results of the handler tell.
local function conclude(handler, record, status, headers, body, more)
    local used = record[USED]
    if used == UPGRADED then return end
    if used then
        -- The handler may return what a method of res has returned.
        if type(status) == "number" then
            raise("the handler has returned an answer, but used res", handler)
        end
        if record[ID] ~= 0 then finish(record, false, handler) end
        return
    end
    if not status and status == nil then
        -- A handler that streams the body may have found it empty.
        if rawget(record[REQ], "chunks") then return finish(record, false, handler) end
        raise("the handler has neither returned an answer nor used res", handler)
    end
    message.check_status(status, handler, "result #1 of the handler of 'serve'")
    if more or more == false then
        bad(handler, "result #4 of the handler of 'serve'", "no more results", more)
    end
    if getmetatable(headers) then
        message.check_plain(headers, handler, "result #2 of the handler of 'serve'")
    end
    local id = record[ID]
    if type(body) == "function" then
        native.http_status(id, status)
        native.http_add_headers(id, headers, handler)
        return send_all(record, body)
    end
    local is_sent, why = native.http_answer(id, status, headers, body, handler)
    if not is_sent then
        local result = "result #3 of the handler of 'serve'"
        if why then native.bad_because(handler, result, why) end
        bad(handler, result, "string, buffer or iterator", body)
    end
    return leave(record)
end

local M = { response = response, METHOD = FIELDS.method }

-- Most handlers use the path: the table has room for it from the beginning.
function M.new(id, path)
    path = path or http_get(id, FIELDS.path)
    local req, res = setmetatable({ path = path }, Request), setmetatable({}, Response)
    local record = { id, false, req, res }
    records[req], records[res] = record, record
    return req, record
end

-- The number of a request, 0 if it is over; nothing for what is none.
function M.id_of(req)
    local record = record_of(req, Request)
    return record and record[ID]
end

-- Whether this is the response of that request, as far as is known of those that are over.
function M.is_response(res, req) return record_of(res, Response) == record_of(req, Request) end

local KEPT = { "method", "query", "version", "remote_addr", "remote_port", "headers", "tls" }

-- Fills in all fields, before the connection is no more one of HTTP.
function M.keep(req)
    for _, name in next, KEPT do
        if rawget(req, name) == nil then Request.__index(req, name) end
    end
end

function M.is_upgraded(res) return upgraded[res] end

function M.forget(req, res)
    local record = records[req]
    record[USED], upgraded[res] = UPGRADED, true
    leave(record)
end

function M.serve(handler, record)
    return conclude(handler, record, handler(record[REQ], record[RES]))
end

-- The handler of a request has failed; false if `req` is no request.
function M.fail(req)
    local record = record_of(req, Request)
    if not record then return false end
    if record[ID] ~= 0 then finish(record, true) end
    return true
end

return M
