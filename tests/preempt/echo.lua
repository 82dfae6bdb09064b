-- Answers every query with what it was asked.
context.recv(0, function(_, value, from, session) context.reply(from, session, value) end)
