-- Readers of the news, who know each other by name.
--
-- Shows: context.register and find, publish and subscribe; one value to all whom it concerns.
-- Run: node-lua examples/topics.lua
-- Expected output:
--   news.sport reaches 2
--   news.weather reaches 1
--   weather reaches 0
--   ann has read news.sport: 2:1, news.weather: rain
--   bob has read news.sport: 2:1
--   bob is gone: true

local here = arg[0]:match("^(.*)/") or "."

context.create(here .. "/reader.lua", "ann", "news.*")
context.create(here .. "/reader.lua", "bob", "news.sport")
for _ = 1, 2 do
    context.recv(0) -- each says when it has subscribed
end

for _, news in ipairs({ "news.sport 2:1", "news.weather rain", "weather snow" }) do
    local topic, text = news:match("^(%S+) (.*)$")
    local _, count = context.publish(topic, text)
    print(topic .. " reaches " .. count)
end

-- A query comes after what the same context has published.
for _, name in ipairs({ "ann", "bob" }) do
    print(name .. " has read " .. context.check(context.query(name, "what?")))
end

local bob = context.find("bob")
context.destroy(bob)
context.wait(bob)
print("bob is gone: " .. tostring(context.find("bob") == nil))
context.destroy(context.find("ann"))
