-- Names that contexts answer under, topics that they publish to, and the list of all contexts.
-- Loaded when a script looks up the first of these. See docs/api/context.md.

local native, core = ...

local select, tonumber, type = select, tonumber, type
local bad, raise, no_more = core.bad, core.raise, core.no_more
local handlers, hold = core.handlers, core.hold
local get_topic = native.topic
local checks -- what core/options.lua returns, once there are options

local context = {}

-- Names -------------------------------------------------------------------------------------------

-- A text that reads as a number stands for a handle, wherever a name may.
local function check_name(name, call)
    local is_name = type(name) == "string" and not tonumber(name)
    if not is_name or name == "" or #name > 253 then
        bad(1, call, "name of 1 to 253 bytes that is no number", name)
    end
end

--- Has this context answer under a name, wherever a handle is expected; several contexts may share
--- a name if all of them say so.
---@param name string
---@param options? { shared?: boolean }
---@return boolean ok, integer|nil code
function context.register(name, options, ...)
    no_more(3, "register", ...)
    check_name(name, "register")
    local shared = false
    if type(options) ~= "nil" then
        checks = checks or native.load("core/options")(native)
        checks.check(options, { shared = true }, 2, "register")
        shared = checks.boolean(options.shared, "shared", "register", false)
    end
    return native.register_name(name, shared)
end

--- Has this context answer under a name no more; false if it did not.
---@param name string
---@return boolean
function context.unregister(name)
    check_name(name, "unregister")
    return native.unregister_name(name)
end

--- The handle of the context that answers under a name, or one for whoever does elsewhere.
---@param name string
---@return integer|nil
function context.find(name)
    if type(name) ~= "string" then bad(1, "find", "name", name) end
    return native.find_name(name) or nil
end

-- Topics ------------------------------------------------------------------------------------------

local numbers = {} -- topic → number of the subscription
local callbacks = {} -- number → callback

--- Has callback(value, topic, from) called with what is published to a topic, which may have `*`
--- for any word, and `>` at its end for any words. A second callback for a topic replaces the
--- first.
---@param topic string
---@param callback fun(value: any, topic: string, from: integer)
---@return boolean ok, integer|nil code
function context.subscribe(topic, callback, ...)
    no_more(3, "subscribe", ...)
    if type(topic) ~= "string" then bad(1, "subscribe", "topic", topic) end
    if type(callback) ~= "function" then bad(2, "subscribe", "function", callback) end
    local number, why = native.subscribe(topic)
    if not number then
        if number == nil then bad(1, "subscribe", why, topic) end
        return false, why
    end
    if not numbers[topic] then hold(1) end
    numbers[topic], callbacks[number] = number, callback
    return true
end

--- Ends a subscription, as it was subscribed to; false if there was none.
---@param topic string
---@return boolean
function context.unsubscribe(topic, ...)
    no_more(2, "unsubscribe", ...)
    if type(topic) ~= "string" then bad(1, "unsubscribe", "topic", topic) end
    local number = numbers[topic]
    if not number then return false end
    numbers[topic], callbacks[number] = nil, nil
    hold(-1)
    native.unsubscribe(topic)
    return true
end

local PUBLICATION = 8

handlers[PUBLICATION] = function(number, value, from)
    local callback = callbacks[number]
    local topic = get_topic()
    -- It may have been on its way when the subscription ended.
    if callback then return callback(value, topic, from) end
end

--- Sends a value to all who have subscribed to a topic. Returns true, how many subscriptions got
--- it, and, if any, how many did not because a mailbox was full.
---@param topic string
---@param ... any one value
---@return boolean ok, integer delivered, integer refused, integer|nil code
function context.publish(topic, ...)
    if type(topic) ~= "string" then bad(1, "publish", "topic", topic) end
    local n = select("#", ...)
    if n == 0 then bad(2, "publish", "value") end
    if n > 1 then no_more(3, "publish", select(2, ...)) end
    -- What comes third: that it is the value which is wrong, more of a failure, or a code.
    local delivered, refused, more = native.publish(topic, ...)
    if delivered == nil then
        if more then raise(refused) end
        bad(1, "publish", refused, topic)
    end
    if not delivered then
        if more then return false, refused, more end
        return false, refused
    end
    if more then return true, delivered, refused, more end
    if refused > 0 then return true, delivered, refused end
    return true, delivered
end

-- Other processes ---------------------------------------------------------------------------------

--- What this process is called in its cluster; nil if it is in none.
---@return string|nil
function context.node() return native.node() or nil end

--- What all processes of the cluster are called that are there now, this one too.
---@return string[]
function context.nodes() return native.nodes() end

--- Handle, name, parent and state ("running", "ready", "suspended", "waiting" or "ending") of every
--- context.
---@return table[]
function context.list() return native.contexts() end

return context
