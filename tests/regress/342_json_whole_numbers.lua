-- Whole numbers from 2^53 to 10^16 were written so that they were read as int64_t.
for _, number in ipairs({ 2 ^ 53 + 2, -2 ^ 53 - 2, 1e16 - 2, 1e16, 2 ^ 62, 1e22 }) do
    local back = json.decode(json.encode({ number }))[1]
    assert(type(back) == "number" and back == number, number)
end
print(json.encode({ 2 ^ 53, -2 ^ 53, 2 ^ 53 + 2 }))
