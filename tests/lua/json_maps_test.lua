-- Maps that json.decode and msgpack.decode make after others.

if not json then return end -- a build without it

local same = require("support.same")
local tap = require("support.tap")
local ok, test = tap.ok, tap.test
local decode = json.decode

-- Maps that have the keys of one before, all of them or some, in this order or another.
test("maps like others", function()
    local function map(count, value, first)
        local pairs_of = {}
        for i = 1, count do
            pairs_of[i] = ('"%s%d":%s'):format(("k"):rep(i % 5), (first or 0) + i, value)
        end
        return "{" .. table.concat(pairs_of, ",") .. "}"
    end
    local texts, expected = {}, {}
    for _ = 1, 3 do
        for count = 0, 20 do
            for first = 0, 40, 20 do
                local i = #texts + 1
                texts[i], expected[i] = map(count, i, first), {}
                for j = 1, count do
                    expected[i][("k"):rep(j % 5) .. first + j] = i
                end
            end
        end
    end
    local list = decode("[" .. table.concat(texts, ",") .. "]")
    for i, read in ipairs(list) do
        if not same(read, expected[i]) then ok(false, texts[i]) end
        for j = 1, 60 do
            read["new" .. j] = j
        end
    end
    local again = decode("[" .. table.concat(texts, ",") .. "]")
    ok(same(again, expected), "what is done to one is done to no other")

    local odd = '{"a":1,"b":2,"c":3},{"a":4,"b":5,"a":6},{"a":7,"b":8,"a":9},{"c":1,"b":2,"a":3},'
    odd = odd .. '{"a":null,"b":1,"c":null},{"a":2,"b":null,"c":3},{"a":null,"a":1,"b":null},'
    list = decode("[" .. odd:rep(9) .. "0]", { drop_nulls = true })
    for i = 1, 62, 7 do
        local good = same(list[i], { a = 1, b = 2, c = 3 }) and same(list[i + 1], { a = 6, b = 5 })
        good = good and same(list[i + 2], { a = 9, b = 8 })
        good = good and same(list[i + 3], { a = 3, b = 2, c = 1 }) and same(list[i + 4], { b = 1 })
        good = good and same(list[i + 5], { a = 2, c = 3 }) and same(list[i + 6], { a = 1 })
        if not good then ok(false, "keys that come twice, or are dropped, from " .. i .. " on") end
    end
    if msgpack then ok(same(msgpack.decode(msgpack.encode(expected)), expected), "msgpack") end
end)

tap.done()
