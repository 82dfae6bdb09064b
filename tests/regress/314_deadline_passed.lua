-- a timeout below 0 is a deadline that has passed
local _, l = tcp.listen("127.0.0.1", 0)
local _, c = tcp.connect("127.0.0.1", tcp.local_port(l))
print(context.recv(0, -0.5))
print(context.query(context.self(), 1, -1))
print(c:read(-1))
assert(l:accept(1))
print(l:accept(-2))
os.exit(0)
