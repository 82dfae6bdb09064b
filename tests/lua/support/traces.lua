--- Programs for the trace compiler, fifty in turn by `k`: loops that get hot, and traces end early.
return function(k)
    return assert(loadstring(([[
        local a, t = 0, {}
        for i = 1, 60 do
            a = a + i %% %d
            if a %% 3 == 0 then t[#t + 1] = a else a = a + #t end
        end
        for j = 1, 40 do
            local s = 0
            for i = 1, 5 do s = s + i * j end
            if s %% 2 == 0 then a = a + s end
        end
        return a]]):format(k % 50 + 2)))
end
