-- What lua-cjson takes for the message of lua_codec, without the loop around it: ns of CPU, the median of 5.
local cjson = require "cjson"
local text = '{"from":"ann","target":"*","content":"hello","kind":7,"time":123456}'
local rounds = tonumber(arg[1]) or 500000

local function median(fn)
  local times = {}
  for i = 1, 5 do
    local from = os.clock()
    for _ = 1, rounds do fn(text) end
    times[i] = (os.clock() - from) / rounds * 1e9
  end
  table.sort(times)
  return times[3]
end

print(string.format('{"decode_ns":%.1f}', median(cjson.decode) - median(rawlen)))
