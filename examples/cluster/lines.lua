-- Sends each line of standard input to the context that has created this one, and at the end nil.

for line in io.lines() do
    context.send(context.parent(), line)
end
context.send(context.parent(), nil)
