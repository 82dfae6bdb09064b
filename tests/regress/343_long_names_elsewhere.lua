-- What no host can be called is not found, whoever connects or sends to it, however long it is; a datagram
-- to it is known at once to be lost.
local _, socket = udp.open()
for _, name in ipairs({
    ("a"):rep(64),
    (("a"):rep(60) .. "."):rep(5) .. "example",
    "",
    "a b",
    "a\0b",
}) do
    print(tcp.connect(name, 80, 2))
    print(udp.open(name, 0))
    print(socket:connect(name, 80))
    print(socket:write("x", name, 80))
    print(socket:write("x", name, 80, true))
end
print(socket:stat().failed)
os.exit(0)
