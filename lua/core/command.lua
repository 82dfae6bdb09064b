-- What a command line asks for beside the main script: the steps before it, in their order, and
-- lines from standard input after it. Loaded if there is anything of it.

local native, core, line = ...

local error, loadfile, loadstring, require, unpack =
    error, _G.loadfile, _G.loadstring, _G.require, unpack
local sub = string.sub
local stdout, stderr = _G.io.stdout, _G.io.stderr
local write, flush = stdout.write, stdout.flush

-- Whatever is run may use coroutines.
native.load_coroutines()
native.list(true)

local function check(chunk, why)
    if not chunk then error(why, 0) end
    return chunk
end

local function compiler(kind)
    return function(text) native.load("core/compiler")(kind, text) end
end

local KINDS = {
    e = function(text) check(loadstring(text, "=(command line)"))() end,
    l = function(name) require(name) end,
    j = compiler("j"),
    O = compiler("O"),
    -- LUA_INIT
    I = function(text)
        local chunk
        if sub(text, 1, 1) == "@" then
            chunk = check(loadfile(sub(text, 2)))
        else
            chunk = check(loadstring(text, "=LUA_INIT"))
        end
        chunk()
    end,
    v = function(text) write(stdout, text) end,
    b = function(...) native.load_jit("jit.bcsave")("jit.bcsave").start(...) end,
}

local main = line.main
if main == true then
    main = function() return loadfile() end
elseif main then
    local file = main
    main = function() return loadfile(file) end
end

return function(...)
    for i = 1, #line do
        local step = line[i]
        KINDS[step[1]](unpack(step, 2))
    end
    if not line.is_interactive then
        if main then return check(main())(...) end
        return
    end
    if main then check(main())(...) end
    return native.load("core/lines")(native, core, loadstring, stdout, stderr, write, flush)
end
