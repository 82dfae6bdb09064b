-- Greeter: answers each query with a greeting. Started by hello.lua, not by itself.
--
-- Shows: a context that serves others: one callback for every message, whoever sends it.

print(("greeter %d was created by %d"):format(context.self(), context.parent()))

context.recv(
    0,
    function(_, name, from, session) context.reply(from, session, "hello, " .. name) end
)
