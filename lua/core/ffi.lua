-- Opens FFI when it is first asked for.

local native = ...

local next, rawget, rawset = next, rawget, rawset
local loaded, preload = native.loaded()

-- FFI is opened once, by whoever asks first, and then the same for scripts and for the library:
-- opening it twice would forget what was declared, and a script may put its own `require`, or its
-- own package.loaded.ffi, in the way.
local open_ffi, ffi = preload.ffi, nil
local shown -- the table that scripts have, once one of them has asked: they may change it

-- From now on the library has a table of its own.
local function show(library)
    shown, ffi = library, {}
    for name, value in next, library do
        ffi[name] = value
    end
    rawset(loaded, "ffi", library)
end

local function get_ffi()
    if not ffi then
        local before = rawget(loaded, "ffi")
        rawset(loaded, "ffi", nil)
        ffi = native.load("core/open_ffi")(loaded, before, open_ffi)
        rawset(loaded, "ffi", nil)
        if before then show(ffi) end
    end
    return ffi
end

function preload.ffi()
    get_ffi()
    if not shown then show(ffi) end
    return shown
end
native.set_ffi(get_ffi)
