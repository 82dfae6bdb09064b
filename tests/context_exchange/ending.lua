-- Ends this context in one of several ways.

local main, ending = ...

return function()
    if ending == "normal" then
        context.destroy()
    elseif ending == "error" then
        error("on purpose")
    elseif ending == "memory" then
        local held = {}
        while true do
            held[#held + 1] = ("x"):rep(1000) .. #held
        end
    elseif ending == "time" then
        while true do
        end
    else
        context.send(main, "kill me")
        timer.sleep(3600)
    end
end
