-- A cluster that checks itself: n1 asks, the others answer; every query ends in an answer that is
-- right, or in a failure that may be. Run with --simulate SEED --nodes N.

local QUERIES, ASKERS = 30, 4

-- How often queries have failed with each code that may be: none is left waiting until its time is
-- over (208).
local failures = { [205] = 0, [207] = 0, [231] = 0 }

if context.node() ~= "n1" then
    context.register("pool", { shared = true })
    context.register("at " .. context.node())
    context.recv(0, function(_, value, from, session)
        if session < 0 then return end
        if value.late then timer.sleep(math.random()) end
        if value.fails then error("as asked", 0) end
        context.reply(from, session, { value.number * 2, context.node() })
    end)
    context.subscribe(
        "news.>",
        function(value, topic) context.publish("heard." .. context.node(), { value, topic }) end
    )
    context.on_error(function(message)
        if message ~= "as asked" then context.exit(1) end
    end)
    return
end

local left, answered, failed, published = ASKERS, 0, 0, 0

-- What a context publishes comes in order, and at most once. (Two processes may have the same name,
-- one after the other.)
local last = {}
context.subscribe("heard.*", function(value, _, from)
    assert(value[2] == "news." .. value[1], "topic of another value")
    assert(value[1] > (last[from] or 0), "published twice, or out of order")
    last[from] = value[1]
end)

local function ask(asker)
    for i = 1, QUERIES do
        local number = asker * 1000 + i
        local target = math.random() < 0.5 and "pool" or "at n" .. math.random(2, 3)
        local value = { number = number, late = math.random() < 0.3, fails = math.random() < 0.1 }
        local began = timer.now()
        local ok, answer = context.query(target, value, 10)
        local time = timer.now() - began
        if ok then
            assert(answer[1] == number * 2, "answer of another query")
            assert(not value.fails, "answer of a query that fails")
            answered = answered + 1
        else
            failures[answer] = failures[answer] + 1
            -- 3 s, and what a simulation with faults is late.
            assert(time < 5, "told too late: " .. time)
            failed = failed + 1
        end
        published = published + 1
        context.publish("news." .. published, published)
        if math.random() < 0.3 then timer.sleep(math.random()) end
    end
    left = left - 1
    if left > 0 then return end
    -- Once nothing goes wrong any more all are there again: with faults, at some moment.
    local ok
    local at = timer.now()
    repeat
        ok = context.query("at n2", { number = 1 }, 1)
        if not ok then timer.sleep(0.1) end
        assert(timer.now() - at < 300, "n2 does not come back")
    until ok
    assert(answered + failed == ASKERS * QUERIES, "some are missing")
    print(answered, failures[205], failures[207], failures[231])
    context.exit(0)
end

local function fail(message)
    print(message)
    context.exit(1)
end
context.on_error(fail)

timer.timeout(0.5, function()
    for asker = 1, ASKERS do
        context.run(ask, asker)
    end
end)
