-- Reads lines from standard input and runs them, as `luajit -i` does. While a line is awaited the
-- context's other coroutines, and all other contexts, go on; what is run may wait like any script.

-- The functions are as they were before the main script ran.
local native, core, loadstring, stdout, stderr, stdout_write, flush = ...

local next, pcall, rawget, select, tostring = next, pcall, rawget, select, tostring
local type, xpcall = type, xpcall
local sub, concat = string.sub, table.concat
local getmetatable, traceback = debug.getmetatable, debug.traceback
local register, suspend = core.register, core.suspend
local globals = _G

local function say(text)
    stdout_write(stdout, text)
    flush(stdout)
end

-- Standard error is not buffered.
local function complain(text)
    flush(stdout)
    stdout_write(stderr, text, "\n")
end

local function read_line(prompt)
    say(prompt)
    native.read_line(register())
    suspend()
    return native.take_line()
end

local function prompt(name, usual)
    local own = rawget(globals, name)
    if own == nil then return usual end
    local ok, text = pcall(tostring, own)
    return ok and text or usual
end

-- One or more lines that make a chunk: the chunk; false, and why there is none; nil at the end.
local function read_chunk()
    local text = read_line(prompt("_PROMPT", "> "))
    if not text then return end
    if sub(text, 1, 1) == "=" then text = "return " .. sub(text, 2) end
    while true do
        local chunk, why = loadstring(text, "=stdin")
        if chunk then return chunk end
        -- Elsewhere in the message it tells what was expected before what there is.
        if sub(why, -7) ~= "'<eof>'" then return false, why end
        local more = read_line(prompt("_PROMPT2", ">> "))
        if not more then return end
        text = text .. "\n" .. more
    end
end

-- What has been raised, with where: for xpcall.
local function describe(value)
    local kind, meta = type(value), nil
    if kind == "nil" then return end
    if kind == "table" or kind == "userdata" then meta = getmetatable(value) end
    if kind == "cdata" or type(meta) == "table" and rawget(meta, "__tostring") ~= nil then
        value = tostring(value)
        kind = type(value)
    end
    if kind == "string" or kind == "number" then return traceback(value, 1) end
    return "(error object is not a string)"
end

-- Prints what a chunk has returned.
local function show(ok, ...)
    if not ok then
        local why = ...
        if why ~= nil then complain(why) end
        return
    end
    if select("#", ...) == 0 then return end
    local done, why = pcall(globals.print, ...)
    if not done then complain("error calling 'print' (" .. tostring(why) .. ")") end
end

-- SIGINT breaks off what runs, as in `luajit`: the hook of src/vm/cut.rs raises "interrupted!" in
-- it. A call that waits ends before, as if its time had been up.
local TIMEOUT = 208

core.load_all(core.context)
native.hear("INT", true)
native.hear("INT", false)
local me, waits, pending, jobs = core.current(), {}, core.pending, core.get_timing().jobs
core.waits = waits

function core.interrupt()
    if not native.is_broken() then return end
    for token, entry in next, pending do
        if entry == me then return core.complete(token, false, TIMEOUT) end
    end
    local record = waits[me]
    if record and record.waiter == me then return core.resume_waiter(record, false, TIMEOUT) end
    for slot, job in next, jobs do
        if job == me then
            -- Its timer stands for a token that nobody waits for.
            jobs[slot] = 0
            core.hold(-1)
            return core.run(me)
        end
    end
end

local function finish(ok, ...)
    -- It has not noticed: no instruction followed the call that waited.
    if native.set_statement(false) and ok then return complain("interrupted!") end
    show(ok, ...)
end

local status = { jit.status() }
local words = { status[1] and "JIT: ON" or "JIT: OFF" }
for i = 2, #status do
    words[i] = status[i]
end
say(concat(words, " ") .. "\n")

while true do
    local chunk, why = read_chunk()
    if chunk == nil then break end
    if chunk then
        native.set_statement(true)
        finish(xpcall(chunk, describe))
    else
        complain(why)
    end
end
say("\n")
-- Whoever ends the input at a terminal wants to leave, whatever else is still going on.
if native.is_terminal() then
    core.load_all(core.context)
    core.exit()
end
