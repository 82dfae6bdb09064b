-- What scripts find when they start; `context` and its like are globals of every context.
std = "luajit"
read_globals = {
  "context", "tcp", "timer", "buffer", "json", "msgpack", "udp", "tls", "websocket", "http"
}
max_line_length = 100
-- `not (x >= y)` is not `x < y` where NaN may come.
ignore = { "581" }
-- The library replaces what must work across waits.
files["lua/core"] = { globals = { "coroutine", "require", "dofile" } }
-- Time and chance are simulated.
files["lua/core/simulation.lua"] = { globals = { "os" } }
-- It takes from a context what is withheld.
files["lua/context/confine.lua"] = { globals = { "debug", "io", "os", "package" } }
-- What the targets' drivers provide, and what they call.
files["fuzz/src/targets"] = {
  globals = { "fuzz" },
  read_globals = {
    "wire_encode", "wire_decode", "wire_copy",
    "native_for_tests", "reference", "hold", "let_go", "MEMORY",
  },
}
-- Recorded scripts of the contract: kept as they were recorded. What LuaJIT says of wrong scripts.
exclude_files = { "tests/conformance", "tests/regress", "tests/stock", "tests/libraries", "target" }
