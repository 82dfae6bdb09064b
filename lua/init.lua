-- Assembles the script API in a new state. Returns what a turn calls, and what starts a script.

local native = ...
local core = {}

local function load(name) return native.load(name)(native, core) end

load("internal/task")
load("internal/require")

local context = load("context")
local timer = load("timer")
core.sleep = timer.sleep
local tcp = load("tcp")
local buffer = load("buffer")

local loaded = package.loaded
_G.context, loaded.context = context, context
_G.timer, loaded.timer = timer, timer
_G.tcp, loaded.tcp = tcp, tcp
_G.buffer, loaded.buffer = buffer, buffer

return core.dispatch, core.start
