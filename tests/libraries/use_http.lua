-- needs: lua-http
local server = require "http.server"
local headers = require "http.headers"
local request = require "http.request"
local cqueues = require "cqueues"
local s = server.listen{host="127.0.0.1", port=0, onstream=function(self, stream)
  local h = stream:get_headers()
  local rh = headers.new() rh:append(":status", "200") rh:append("content-type","text/plain")
  stream:write_headers(rh, false) stream:write_chunk("you asked " .. h:get(":path") .. "\n", true)
end, onerror=function(_, ...) print("onerror", ...) end}
s:listen()
local _, _, port = s:localname()
local cq = cqueues.new()
cq:wrap(function() s:loop() end)
cq:wrap(function()
  for i = 1, 3 do
    local r = request.new_from_uri("http://127.0.0.1:" .. port .. "/p" .. i)
    local h, st = r:go(5)
    print(h and h:get(":status"), h and st:get_body_as_string() or st)
  end
  s:close()
end)
print(cq:loop(5))
