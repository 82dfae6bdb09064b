-- What scripts find when they start; `context` and its like are globals of every context.
std = "luajit"
read_globals = { "context", "tcp", "timer", "buffer" }
globals = { "package.path" }
max_line_length = 100
-- Recorded scripts of the contract: kept as they were recorded.
exclude_files = { "tests/conformance", "target", "**/node_modules" }
