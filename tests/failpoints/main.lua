-- Two pairs of contexts that have nothing to do with each other: what fails in one must not be seen
-- in the other. Run by tests/failpoints.rs, which makes one thing fail.

local pairs_of = {}
for _, name in ipairs { "one", "two" } do
    pairs_of[#pairs_of + 1] = context.create("tests/failpoints/pair.lua", name)
    print("created " .. name)
end
for _, pair in ipairs(pairs_of) do
    context.wait(pair)
end
print "complete main"
