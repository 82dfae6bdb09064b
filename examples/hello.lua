-- Hello: two contexts talk to each other.
--
-- Shows: a script is a context; it creates another one, asks it something and waits for the answer.
-- Run: node-lua examples/hello.lua [name]
-- Expected output:
--   greeter 2 was created by 1
--   hello, world

local name = ... or "world"
local here = arg[0]:match("^(.*)/") or "."

-- Another script, another Lua state: nothing is shared, on whatever core has time.
local greeter = context.create(here .. "/greeter.lua")

local ok, answer = context.query(greeter, name)
if not ok then error("no greeting: " .. context.strerror(answer)) end
print(answer)

-- The greeter would wait for further questions for ever, and the process with it.
context.destroy(greeter)
