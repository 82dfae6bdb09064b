-- The requests and responses of handlers. Loaded with the first server.

local native, core, message = ...

local getmetatable = debug.getmetatable
local rawget, rawset, setmetatable = rawget, rawset, setmetatable
local next, pcall, rawequal, select = next, pcall, rawequal, select
local tonumber, type = tonumber, type
local find, lower, match = string.find, string.lower, string.match
local bad, raise, strerror = core.bad, core.raise, native.strerror
local register, cancel, suspend = core.register, core.cancel, core.suspend
local check_may_wait, no_more = core.check_may_wait, core.no_more
local http_get, http_write = native.http_get, native.http_write
local waiting = message.waiting

local ABORTED, INVALID = 11, 18

-- What is known of a request, in its metatable, where scripts neither see nor set it: its number, 0
-- once it is over; whether a method of `res` was used; the objects that scripts have; and the
-- metatable of `res`, which has the record under the same number.
local ID, USED, REQ, RES, OF_RES = 1, 2, 3, 4, 5
local RECORD = 1
local UPGRADED = {} -- in the place of USED

-- Records whose requests are over, for the next.
local spare, spares = {}, 0
local SPARES_MAX = 100

local function id_of(req) return getmetatable(req)[ID] end

local bodies = message.bodies(
    function(req, token) return native.http_read(id_of(req), token) end,
    nil,
    function(req) native.http_give_up(id_of(req)) end
)
local request, response = {}, {}

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

local function index(req, name)
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

local function new_record()
    local record = { 0, true, nil, nil, nil, __index = index, __metatable = false }
    record[OF_RES] = { record, __index = response, __metatable = false }
    return record
end

-- What requests have, and their responses, that are over and have given theirs away.
local OVER = new_record()

-- The records of a request and of a response; nothing for others.
local function record_of(req)
    local record = type(req) == "table" and getmetatable(req)
    if record and rawget(record, "__index") == index then return record end
end

local function record_of_response(res)
    local of_res = type(res) == "table" and getmetatable(res)
    if of_res and rawget(of_res, "__index") == response then return of_res[RECORD] end
end

function check_request(req, name)
    local record = record_of(req)
    if not record then bad(1, name, "request", req) end
    return record[ID]
end

local function check_response(res, name)
    local record = record_of_response(res)
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
    if record[ID] == 0 then return end
    record[ID] = 0
    local req = record[REQ]
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
function response.json(res, ...)
    local id, record = check_response(res, "json")
    local value = ...
    if select("#", ...) == 0 then bad(2, "json", "value", ...) end
    no_more(3, "json", select(2, ...))
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
    local record
    if spares > 0 then
        record = spare[spares]
        spares = spares - 1
    else
        record = new_record()
    end
    record[ID], record[USED] = id, false
    local req = setmetatable({ path = path or http_get(id, FIELDS.path) }, record)
    record[REQ], record[RES] = req, setmetatable({}, record[OF_RES])
    return req, record
end

-- The number of a request, 0 if it is over; nothing for what is none.
function M.id_of(req)
    local record = record_of(req)
    return record and record[ID]
end

-- Whether this is the response of that request, as far as is known of those that are over.
function M.is_response(res, req) return record_of_response(res) == record_of(req) end

local KEPT = { "method", "query", "version", "remote_addr", "remote_port", "headers", "tls" }

-- Fills in all fields, before the connection is no more one of HTTP.
function M.keep(req)
    for _, name in next, KEPT do
        if rawget(req, name) == nil then index(req, name) end
    end
end

function M.is_upgraded(res) return record_of_response(res)[USED] == UPGRADED end

function M.forget(req)
    local record = record_of(req)
    record[USED] = UPGRADED
    leave(record)
end

-- Calls the handler and answers. The record serves another request then, but for those that have
-- become WebSockets, which is still asked for.
function M.serve(handler, record)
    local req, res = record[REQ], record[RES]
    conclude(handler, record, handler(req, res))
    if record[USED] == UPGRADED or spares == SPARES_MAX then return end
    local of_res = record[OF_RES]
    -- Protected ones are not replaced.
    record.__metatable, of_res.__metatable = nil, nil
    setmetatable(req, OVER)
    setmetatable(res, OVER[OF_RES])
    record.__metatable, of_res.__metatable = false, false
    record[REQ], record[RES] = nil, nil
    spares = spares + 1
    spare[spares] = record
end

-- The handler of a request has failed; false if `req` is no request.
function M.fail(req)
    local record = record_of(req)
    if not record then return false end
    if record[ID] ~= 0 then finish(record, true) end
    return true
end

return M
