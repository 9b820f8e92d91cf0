-- role: the hooks of the service.
local Players = require "players"

local Init = {}

-- A record could not be made durable: memory may be ahead of the log. What has landed is loaded at the next request.
function Init.on_lost(key)
  Players.forget_key(key)
  if key:sub(1, 5) == "name:" then state.names = {} end
  if key:sub(1, 6) == "order:" then state.orders = {} end
end

-- A connector that went down holds nobody; its sessions are asked for one by one at the next login.
function Init.on_peer(instance, up)
  if up or not instance:match("^connector%-") then return end
  log.info("connector.away", { instance = instance })
end

return Init
