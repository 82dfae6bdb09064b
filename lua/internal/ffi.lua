-- Opens FFI when it is first asked for.

local native = ...

local preload, loaded = package.preload, package.loaded

-- FFI is opened once, by whoever asks first, and then the same for scripts and for the library:
-- opening it twice would forget what was declared, and a script may put its own `require`, or its
-- own package.loaded.ffi, in the way.
local open_ffi, ffi = preload.ffi, nil
local function get_ffi()
  if not ffi then
    local before = loaded.ffi
    loaded.ffi = nil
    ffi = native.load("internal/open_ffi")(loaded, before, open_ffi)
    loaded.ffi = ffi
  end
  return ffi
end
preload.ffi = get_ffi
native.set_ffi(get_ffi)
