-- What differs for a script in a simulation: chance and time come from the seed.
--
-- The compiler is off: when it compiles what depends on where its code lies.

local native = ...

local floor = math.floor
local now, wall_clock = native.now, native.wall_clock
local system_time, system_date = os.time, os.date

jit.off()
math.randomseed(native.random_seed())

os.clock = now

function os.time(fields)
  if fields == nil then return floor(wall_clock()) end
  return system_time(fields)
end

function os.date(format, time)
  return system_date(format, time or floor(wall_clock()))
end
