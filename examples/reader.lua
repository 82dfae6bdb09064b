-- A reader of the news: see topics.lua.
--
-- Shows: answering under a name, and a subscription.

local name, topics = ...

local read = {}
context.check(context.register(name))
context.check(
    context.subscribe(topics, function(text, topic) read[#read + 1] = topic .. ": " .. text end)
)
context.recv(
    0,
    function(_, _, from, session) context.reply(from, session, table.concat(read, ", ")) end
)
context.send(context.parent(), "ready")
