-- A context that writes a hundred texts to the socket whose number it is sent; started by tests.

local _, fd, from = context.recv(0)
for i = 1, 100 do
    tcp.write(fd, ("%03d"):format(i))
end
context.send(from, "done")
