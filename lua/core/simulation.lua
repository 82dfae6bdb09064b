-- What differs for a script in a simulation: time is virtual.
--
-- The compiler is off: when it compiles what depends on where its code lies.

local native = ...

local type = type
local now, wall_clock = native.now, native.wall_clock
local system_time, system_date, system_remove = os.time, os.date, os.remove
local remove_socket_file = native.remove_socket_file

-- The library `math` is not opened for this.
local function seconds()
    local time = wall_clock()
    return time - time % 1
end

jit.off()

os.clock = now

function os.time(fields)
    if type(fields) == "nil" then return seconds() end
    return system_time(fields)
end

-- Socket files are not among the system's.
function os.remove(path)
    if remove_socket_file(path) then return true end
    return system_remove(path)
end

function os.date(format, time) return system_date(format, time or seconds()) end
