-- Logins of the platforms' players.
local platforms = { demo = require "demo" }

local Remote = {}

local function is_plain(text)
  return #text >= 1 and #text <= 55 and not text:find("[%c*]")
end

function Remote.verify(args)
  local platform = platforms[args.platform]
  if not platform then return nil, "not_found", "platform: it is not known here" end
  if not is_plain(args.account) then return nil, "bad_request", "account: 1 to 55 bytes without control characters" end
  local uid, err, why = platform.verify(args.account, args.credential)
  if not uid then return nil, err, why end
  return { uid = uid }
end

return Remote
