-- Root coroutines: who waits for what, and who runs next.
--
-- The main chunk and every callback run in a root coroutine. A call that waits registers what it
-- waits for under a token and yields the marker WAIT. In a user coroutine the marker travels up
-- through the wrapped `coroutine.resume` and `wrap` (core/coroutine.lua) to the root, and the
-- answer travels down the same way, so that user code sees an ordinary call. `dispatch` is what a
-- turn calls: it has a root, the dispatcher, pull the turn's events and resume who waited for them.
-- The dispatcher calls callbacks itself; if one waits, another root becomes the dispatcher, and
-- this one goes on as the callback's.
--
-- A turn may be cut between any two instructions: the runtime's hook yields, without a value, in
-- whatever coroutine runs. Each resumer that sees this yields it on at once, up to the driver,
-- which Rust resumes, and later resumes again what it had resumed. Nothing else happens in between,
-- so that nobody else need know. See src/vm/cut.rs.
--
-- Knows none of the operations: see lua/context/, lua/tcp/ and lua/timer.lua.

local native, core = ...

local error, pcall, select, tonumber, type = error, pcall, select, tonumber, type
local jit_off = jit.off
local raw_create, raw_resume, raw_yield = coroutine.create, coroutine.resume, coroutine.yield
local raw_status = coroutine.status
local next_event, is_ending, may_wait = native.next_event, native.is_ending, native.may_wait
local xpcall, note_failure = xpcall, native.note_failure

-- Yielded by a call that waits, and by a pooled root that is done.
local WAIT, IDLE = {}, {}
-- Yielded after WAIT to hand a cut on. `cut[1]` tells a hook's yield from a script's of no value.
local CUT, cut = {}, { false }

local current -- the root coroutine that runs
local dispatcher -- the root coroutine that pulls events
local idle = {} -- root coroutines that are done with their callback
local pending = {} -- token → the root, or the callback, that waits for it
local deferred = {} -- { f, arguments… } to call before the turn ends, or in the next one
local last_token = 0
local alive = 0 -- what keeps the context from ending: tokens, timers, registered callbacks
local main_root
local asker, asked -- for whom the root runs, until it waits: handle and session of a query
local serve, stop_serving, join -- what context/request.lua returns, once one waits or fails
local refuse -- likewise, core/refusal.lua
local timing -- what core/timeout.lua returns, once anything has a timeout
-- Root coroutine → the socket that it was given, which its failure closes, or what is called then.
local guards
local explain -- likewise, core/failure.lua
local after_run -- called when a root has run, if somebody wants to know
local handlers = {} -- event kind → function

-- How the library raises on behalf of a script, everywhere: `bad(position, name, expected, value)`
-- says that an argument of function `name` (or an option, if its name is given for the position) is
-- wrong, what it should be, and what it is; `bad_because(position, name, why)` gives a reason
-- instead; `raise(text)` says something else. All name the line of the script's innermost function,
-- wherever they are called from: there are no levels to count.
-- `describe(value)` is how `bad` words what was given. See src/vm/blame.rs.
local bad, raise = native.bad, native.raise

-- What is above are upvalues of what is below: see prelude.rs.

-- A root that runs for a query waits, or has failed.
local function keep_asker(co)
    if not serve then
        serve, stop_serving, join = native.load("context/request")(native)
    end
    serve(co, asker, asked)
    asked = nil
end

local function fail(co, message)
    if stop_serving then stop_serving(co, true) end
    explain = explain or native.load("core/failure")(native, core)
    if guards then core.on_failure(guards, co, message) end
    return explain(co, message, co == main_root, false)
end

-- Reports an error that the library has caught on behalf of the script, where it was raised, and
-- returns it: for xpcall, and for finalisers (src/vm/finaliser.rs).
function native.report_caught(message)
    explain = explain or native.load("core/failure")(native, core)
    explain(current, message, false, true)
    return message
end

-- A root has neither waited nor failed: the main chunk has returned. Were a C function to yield,
-- which raises there (src/vm/coroutine.rs), nobody could resume it.
local function go_on(co)
    if raw_status(co) == "suspended" then fail(co, "attempt to yield across C-call boundary") end
end

local function finish(before, co, ok, what, why)
    -- An error may be any object, and to compare an FFI object may call its `__eq`.
    if ok and (what == WAIT and why == CUT or what == nil and cut[1]) then
        cut[1] = false
        raw_yield(WAIT, CUT)
        return finish(before, co, raw_resume(co))
    end
    current = before
    if after_run then after_run() end
    if ok and what == IDLE then
        asked = nil
        if stop_serving then stop_serving(co) end
        if guards then guards[co] = nil end
        local n = #idle
        if n < 64 then idle[n + 1] = co end
        return
    end
    if asked then keep_asker(co) end
    if not ok then return fail(co, what) end
    if what == WAIT then return end
    -- The main chunk runs in `xpcall`.
    local has_failed = what == false and co == main_root and raw_status(co) == "dead"
    if has_failed then return fail(co, why) end
    return go_on(co)
end

-- Resumes a root coroutine. Only from the dispatcher, never from inside another root.
local function run(co, ...)
    local before = current
    current = co
    return finish(before, co, raw_resume(co, ...))
end

-- Pulls events until there are none, or until this root is no longer the dispatcher. Handlers that
-- call a callback do it last, so that nothing of them is left to do if it waits.
local function loop()
    local me, is_last = dispatcher, false
    repeat
        local kind, a, b, c = next_event(core.stock)
        if kind == nil then return end
        if kind < 0 then
            kind, is_last = -kind, true
        end
        handlers[kind](a, b, c)
        asked = nil
    until is_last or dispatcher ~= me
end

local function work(f, ...)
    if f then
        f(...)
    else
        loop()
    end
    return work(raw_yield(IDLE))
end

-- What root coroutines other than the main one run: functions, or events where there is none. An
-- error is looked at where it was raised, and then ends the coroutine.
local function pooled(...)
    local _, why = xpcall(work, note_failure, ...)
    error(why, 0)
end

local function get_root()
    local n = #idle
    local co = idle[n]
    if co == nil then return raw_create(pooled) end
    idle[n] = nil
    return co
end

-- Calls a function in a root coroutine of its own. Only from the dispatcher.
local function call(f, ...) return run(get_root(), f, ...) end

-- Calls a function likewise, with a socket that is closed should it end by an error: the peer must
-- not wait for what will not come.
local function call_guarded(socket, f, ...)
    local co = get_root()
    guards[co] = socket
    return run(co, f, ...)
end

-- The root that runs is given a socket likewise.
local function guard(socket) guards[current] = socket end

-- Notes that a callback is about to be called for a query, by a handler or a root of its own.
local function begin_serving(from, session)
    asker, asked = from, session
end

-- The root that runs has taken a query, maybe after others.
local function take_query(from, session)
    if not asked then
        asker, asked = from, session
    else
        if not join then
            serve, stop_serving, join = native.load("context/request")(native)
        end
        asker, asked = join(asker, asked, from, session)
    end
end

-- Has the dispatcher call f(a, b, c) soon, outside any root.
local function defer(f, a, b, c) deferred[#deferred + 1] = { f, a, b, c } end

-- Has a function never be compiled. In a finaliser, which may be what loads the library's chunks,
-- the VM refuses to be told so: then it is later.
local function interpret(f)
    if not pcall(jit_off, f) then defer(jit_off, f) end
end

-- Waits until the root is resumed; returns what it is resumed with.
local function suspend() return raw_yield(WAIT) end

-- Waits likewise, as the one who waits for `record` without a token: `resume_waiter` ends it.
local function suspend_on(record)
    record.waiter, record.busy = current, false
    local waits = core.waits -- set at the prompt
    if waits then waits[current] = record end
    alive = alive + 1
    return raw_yield(WAIT)
end

-- Resumes the root that waits for `record` without a token. Only from the dispatcher.
local function resume_waiter(record, ok, value)
    local waiter = record.waiter
    record.waiter = false
    alive = alive - 1
    return run(waiter, ok, value)
end

-- Raises where a wait cannot get up to the root: where the C stack cannot be left, here or in a
-- coroutine that this one runs inside, and where C code has resumed one of them.
local function refuse_wait(why)
    refuse = refuse or native.load("core/refusal")(native, core)
    refuse(why)
end

-- Calls a native function that looks at this first, by what it is given before its own arguments.
-- Where it cannot wait, it returns nil and what `refuse_wait` is to be called with.
local function call_to_wait(f, a, b, c) return f(current, raw_resume, a, b, c) end

-- Registers an operation; `entry` is a callback, or nil for the running root.
local function register(entry)
    local token = last_token + 1
    last_token = token
    pending[token] = entry or current
    alive = alive + 1
    return token
end

-- Forgets an operation; true if it was still pending.
local function cancel(token)
    if pending[token] == nil then return false end
    pending[token] = nil
    alive = alive - 1
    if timing then timing.forget(token) end
    return true
end

-- Raises where nothing may wait; an operation that has been registered for the wait is forgotten.
local function check_may_wait(token)
    local why = may_wait(current, raw_resume)
    if not why then return end
    if token then cancel(token) end
    refuse_wait(why)
end

-- Ends an operation: resumes, or calls, who waits for it. Only from the dispatcher.
local function complete(token, ...)
    local entry = pending[token]
    if entry == nil then return end
    cancel(token)
    if type(entry) == "thread" then return run(entry, ...) end
    return call(entry, ...)
end

-- The same, as the last thing that a handler does.
local function conclude(token, ok, value)
    local entry = pending[token]
    if entry == nil then return end
    pending[token] = nil
    alive = alive - 1
    if timing then timing.forget(token) end
    if type(entry) == "thread" then return run(entry, ok, value) end
    return entry(ok, value)
end

local function get_timing()
    timing = timing or native.load("core/timeout")(native, core)
    return timing
end

-- Gives an operation a timeout in seconds; 0 for none. Those below 0 never get here: the call has
-- failed at once.
local function set_timeout(token, seconds)
    if seconds > 0 then get_timing().set(token, seconds) end
end

local function is_waiting(token) return pending[token] ~= nil end

-- What keeps the context alive beside operations: registered callbacks and timers.
local function hold(count) alive = alive + count end

local function is_looper(co) return co == dispatcher end

local function get_current() return current end

local COMPLETE, COLLECT = 6, 17

-- A one-shot operation is over.
handlers[COMPLETE] = conclude
-- Descriptors ran out somewhere else. Who has sockets counts what it collects (tcp/socket.lua).
handlers[COLLECT] = native.collect

-- One turn. Returns 0 if the context is done, 1 to wait for events, 2 to run again at once, unless
-- it has destroyed itself; and how many queries wait for an answer.
local function dispatch()
    repeat
        local co = dispatcher
        if co == nil then
            co = get_root()
            dispatcher = co
        end
        current = co
        local ok, what, why = raw_resume(co)
        while ok and (what == WAIT and why == CUT or what == nil and cut[1]) do
            cut[1] = false
            raw_yield()
            ok, what, why = raw_resume(co)
        end
        current = nil
        if after_run then after_run() end
        local is_idle = ok and what == IDLE
        if not is_idle then
            dispatcher = nil
            if asked then keep_asker(co) end
            if not ok then
                fail(co, what)
            elseif what ~= WAIT then
                go_on(co)
            end
        end
    until is_idle
    if timing and timing.late[1] then timing.expire_late() end
    -- What is deferred meanwhile waits for the next turn, so that a turn ends.
    local jobs = deferred
    if jobs[1] and not is_ending() then
        deferred = {}
        for i = 1, #jobs do
            local job = jobs[i]
            job[1](job[2], job[3], job[4])
        end
    end
    local break_deadlock = core.break_deadlock
    if break_deadlock and alive > 0 and not is_ending() and break_deadlock(alive) then
        return 2, core.unanswered
    end
    if deferred[1] then return 2, core.unanswered end
    return alive > 0 and 1 or 0, core.unanswered
end

-- Starts the main chunk, or what a command line asks for beside it.
local function start(f, ...)
    if type(f) == "table" then f = native.load("core/command")(native, core, f) end
    main_root = raw_create(xpcall)
    run(main_root, f, note_failure, ...)
end

-- What Rust resumes: once to start the script, if there is one, and once for each turn.
local function drive(f, ...)
    if f then
        start(f, ...)
        raw_yield(1, 0)
    end
    while true do
        raw_yield(dispatch())
    end
end

native.prepare_cuts(raw_create(drive), raw_resume, get_current, cut)

-- User coroutines ---------------------------------------------------------------------------------

-- They are the business of core/coroutine.lua, which most contexts do not need. It is loaded
-- before a script runs that mentions them, when `coroutine` is first looked up, or when one of the
-- stubs that are in it is first called, and puts its own in their place; those that somebody has
-- kept go on to work.
local coroutines = coroutine
local stubs, loaded

-- For a script that looks through the globals: most of those want no coroutines.
function native.stub_coroutines()
    if loaded then return end
    stubs = native.load("core/stubs")(native, coroutines)
end

function native.load_coroutines()
    if loaded then return loaded end
    local load = native.load("core/coroutine")
    loaded =
        load(native, core, WAIT, CUT, cut, raw_create, raw_resume, raw_yield, coroutines, stubs)
    stubs = nil
    return loaded
end

-- A call's timeout in seconds: 0 is none, and a negative one is a deadline that has passed.
local function timeout_of(value, position, name)
    local number = type(value) == "number" and value or type(value) == "string" and tonumber(value)
    if not number then bad(position, name, "number of seconds", value) end
    if number - number ~= 0 then bad(position, name, "finite number of seconds", value) end
    return number
end

-- Raises for whatever follows a function's last argument, even nil: it would do nothing. The hot
-- tcp.write and the `put` methods of buffers check for themselves, and let nil pass.
local function no_more(position, name, ...)
    if select("#", ...) > 0 then bad(position, name, nil, (...)) end
end

core.bad, core.raise, core.timeout_of, core.no_more = bad, raise, timeout_of, no_more
core.handlers, core.get_timing = handlers, get_timing
core.call, core.complete, core.defer, core.conclude = call, complete, defer, conclude
core.interpret = interpret
core.run, core.begin_serving, core.take_query = run, begin_serving, take_query
core.call_guarded, core.guard = call_guarded, guard
core.guards = function(is_new)
    if is_new then guards = {} end
    return guards
end
core.stop_timers = function()
    if timing then timing.stop() end
end
core.last_token = function() return last_token end
core.register, core.cancel, core.set_timeout = register, cancel, set_timeout
core.suspend, core.check_may_wait, core.is_waiting = suspend, check_may_wait, is_waiting
core.call_to_wait, core.refuse_wait = call_to_wait, refuse_wait
core.suspend_on, core.resume_waiter = suspend_on, resume_waiter
core.hold, core.current = hold, get_current
core.is_looper, core.pending = is_looper, pending
core.set_after_run = function(f) after_run = f end
