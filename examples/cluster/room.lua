-- A room of a game, which players come to by sending their names to it.

local players = {}
context.register((...))
context.recv(0, function(_, value, from, session)
    if value == "ready?" then return context.reply(from, session, true) end
    if value == "who?" then
        local text = #players .. " players: " .. table.concat(players, " ")
        return context.reply(from, session, text)
    end
    players[#players + 1] = value
end)
