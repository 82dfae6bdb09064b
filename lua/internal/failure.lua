-- Reports that a root coroutine has failed. Loaded with the first failure.

local native, traceback, core = ...

local pcall, tostring, type = pcall, tostring, type

-- Turns an error value into text, whatever its __tostring does.
local function describe(value)
  if type(value) == "string" then return value end
  local ok, text = pcall(tostring, value)
  if ok and type(text) == "string" then return text end
  return "(error object is a " .. type(value) .. " value)"
end

return function(co, message, is_main)
  local text = describe(message)
  local passing = core.passing
  core.passing = nil
  if passing and passing.message == message then
    -- It has come through a `require`.
    text = text .. passing.trace
  else
    -- Together they would end at a zero byte of the text.
    text = text .. "\n" .. traceback(co)
  end
  -- The runtime's own frames are noise to whoever reads this.
  text = text:gsub("\n\t%[node%-lua%][^\n]*", ""):gsub("\n\t%[C%]: in function '[error]*'", "")
  native.report(text, is_main)
end
