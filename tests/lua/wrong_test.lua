-- Wrong arguments: every public function and method, in every position, with every kind of wrong
-- value. What raises names the function and the value, with the line of this script, and nothing of
-- the library's.

local failures, checks = 0, 0

-- The one place that everything is called from.
local function attempt(f, ...)
    local function results(...)
        return ...
    end
    return results(f(...))
end

local PLACE = ("%s:%d: "):format(arg[0], debug.getinfo(attempt).linedefined + 4)

local ok, listener = tcp.listen("127.0.0.1", 0)
assert(ok, listener)
local _, socket = tcp.connect("127.0.0.1", tcp.local_port(listener))
local _, closed = tcp.connect("127.0.0.1", tcp.local_port(listener))
closed:close()
local _, dead_listener = tcp.listen("127.0.0.1", 0)
dead_listener:close()
local released = buffer.new("gone")
released:release()

local ABSENT = {}
-- Value, and what of it an error must mention.
local VALUES = {
    { nil, "nil" }, { ABSENT, "no value", "nil" }, { true, "boolean true" },
    { false, "boolean false" },
    { "abc", 'string "abc"' }, { "", 'string ""' }, { "a\0\n\"", 'string "a\\0\\n\\""' },
    { ("x"):rep(5000), "...\" of 5000 bytes" },
    { -1, "number -1" }, { 0.5, "number 0.5" }, { 0 / 0, "nan" }, { 1 / 0, "number inf" },
    { 2 ^ 53, "number 9.007" }, { 1e300, "number 1e+300" }, { 7LL, "cdata 7LL" },
    { {}, "table" }, { print, "function" }, { coroutine.create(print), "thread" },
    { io.stdout, "userdata" }, { socket, "tcp socket" }, { closed, "closed tcp socket" },
    { listener, "tcp listen socket" }, { dead_listener, "closed tcp listen socket" },
    { buffer.new("x"), "a buffer" }, { released, "released" },
}

local function complain(...)
    failures = failures + 1
    print("not ok", ...)
end

-- Calls f with a wrong value at `position` of good ones.
local function check(name, f, arguments, position, value, words, ...)
    local given = { n = arguments.n or #arguments }
    for i = 1, given.n do given[i] = arguments[i] end
    given.n = math.max(given.n, position)
    if value == ABSENT then
        given.n = position - 1
    else
        given[position] = value
    end
    checks = checks + 1
    local fine, text = pcall(attempt, f, unpack(given, 1, given.n))
    if fine then return end
    local where = ("%s, position %d, %s"):format(name, position, words[2])
    if type(text) ~= "string" then return complain(where, "raises no text", text) end
    if text:sub(1, #PLACE) ~= PLACE then return complain(where, "another place:", text) end
    local rest = text:sub(#PLACE + 1)
    if rest:find("node-lua", 1, true) or rest:find("%.lua") then
        complain(where, "internals:", text)
    end
    if not rest:find(name, 1, true) then complain(where, "does not name the function:", text) end
    local tells = rest:find(words[2], 1, true) or words[3] and rest:find(words[3], 1, true)
    for i = 1, select("#", ...) do tells = tells or rest:find((select(i, ...))) end
    if not tells then
        complain(where, "does not tell the value:", text)
    end
end

local function every(name, f, arguments, ...)
    for position = 1, arguments.n or #arguments do
        for _, words in ipairs(VALUES) do
            check(name, f, arguments, position, words[1], words, ...)
        end
    end
end

every("length", buffer.length, { released })
every("unpack", buffer.unpack, { buffer.new("abc"), "i1", 1 }, "^unpack: ", 'got string "')
every("timeout", timer.timeout, { 1e6, print })

print(checks > 10 and failures == 0 and "ok" or failures .. " of " .. checks .. " failed")
os.exit(failures == 0 and 0 or 1)
