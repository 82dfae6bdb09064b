-- set_rwopt names what it does not take: the field, what is allowed, what was given.

local sockets = require("support.sockets")
local tap = require("support.tap")
local raises, is, ok = tap.raises, tap.is, tap.ok

local server, client = sockets.pair()

-- The message of a refusal.
local function refused(options)
    local _, message = pcall(tcp.set_rwopt, client, options)
    return tostring(message)
end

local function names(name, options, ...)
    for _, part in ipairs({ "bad argument #2 to 'set_rwopt'", ... }) do
        raises(name, part, tcp.set_rwopt, client, options)
    end
end

tap.test("fields that there are none of", function()
    names("a wrong name", { read_head_byte = 2 }, '"read_head_byte"', "read_head_bytes")
    names("a list", { "read_head_bytes" }, "number 1;")
    names("beside a right one", { read_head_bytes = 2, endian = "B" }, '"endian"')
    names("no name at all", { [true] = 1 }, "boolean true")
    is(client:get_rwopt().read_head_bytes, 0, "nothing was changed")
end)

tap.test("values that there are none of", function()
    for _, way in ipairs({ "read", "write" }) do
        local function check(field, value, ...)
            local name = way .. "_head_" .. field
            names(("%s = %s"):format(name, tostring(value)), { [name] = value }, name .. ": ", ...)
        end
        check("bytes", 9, "9 is not 0 to 8 or 'varint'")
        check("bytes", 1.5, "whole number expected, got number 1.5")
        check("bytes", 0 / 0, "whole number expected, got number ", "nan")
        check("bytes", "two", 'whole number expected, got string "two"', "'varint'")
        check("bytes", true, "whole number expected, got boolean true")
        check("max", -1, "-1 must be 0")
        check("max", {}, "whole number expected, got table")
        check("endian", "X", 'got string "X"')
        check("endian", 5, "'L' or 'B' expected, got number 5")
        local both = { [way .. "_head_bytes"] = 1, [way .. "_head_max"] = 256 }
        names("too much", both, way .. "_head_max: 256 is not within 0 and 255")
    end
end)

tap.test("unusual widths", function()
    for _, width in ipairs({ 3, 5, 6, 7, 8 }) do
        local alone = { read_head_bytes = width }
        names("alone", alone, width .. " and nothing else is not 0, 1, 2 or 4", "read_head_endian")
        local beside =
            { { read_head_endian = "B" }, { read_head_max = 9 }, { write_head_bytes = 2 } }
        for _, options in ipairs(beside) do
            options.read_head_bytes = width
            client:set_rwopt(options)
            is(client:get_rwopt().read_head_bytes, width, width .. " beside another field")
        end
        client:set_rwopt({ write_head_bytes = width })
        is(client:get_rwopt().write_head_bytes, width, width .. " for writing")
    end
    client:set_rwopt({
        read_head_bytes = 0,
        read_head_endian = "L",
        read_head_max = 0,
        write_head_bytes = 0,
    })
end)

tap.test("the line", function()
    local called = debug.getinfo(1, "l").currentline + 1
    local _, message = pcall(function() client:set_rwopt({ wrong = 1 }) end)
    local place = "rwopt_test.lua:" .. called .. ":"
    tap.ok(tostring(message):find(place, 1, true), "is the caller's", message)
end)

tap.test("a write that raises fixes nothing", function()
    client:set_rwopt({ write_head_bytes = 1, write_head_max = 3 })
    local long = ("x"):rep(4)
    for _, data in ipairs({ long, buffer.new(long), {}, 12345 }) do
        for _, how in ipairs({ false, true, function() end }) do
            ok(not pcall(tcp.write, client, data, how), "it raises")
        end
    end
    ok(not pcall(tcp.write, client, "x", 5), "so does a wrong third argument")
    ok(not pcall(tcp.write, client, "x", true, 5), "and a fourth one")
    tcp.write(client, "")
    client:set_rwopt({ write_head_bytes = 2, write_head_max = 65535 })
    is(client:get_rwopt().write_head_bytes, 2, "the options can still be set")
end)

tap.test("options that are fixed", function()
    client:set_rwopt({ read_head_bytes = 2, write_head_bytes = 2 })
    client:write("x")
    server:write("\1\0y")
    is(sockets.read(client), "y", "a frame")
    tap.ok(refused({ read_head_bytes = 1 }):find("before", 1, true), "say when to set them")
    tap.ok(refused({ write_head_bytes = 1 }):find("before", 1, true), "both ways")
end)

server:close()
client:close()
tap.done()
