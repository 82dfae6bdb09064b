-- A context that answers a few questions; started by tests.

context.recv(0, function(_, question, from, session)
    if question == "about" then
        local about = { self = context.self(), parent = context.parent(), name = context.name() }
        context.reply(from, session, about)
    elseif question ~= "silence" then
        context.reply(from, session, question.add[1] + question.add[2])
    end
end)
