-- role: the hooks of the service.
local Online = require "online"
local Players = require "players"

local Init = {}

-- A record could not be made durable: memory may be ahead of the log. What has landed is loaded at the next request.
function Init.on_lost(key)
  Players.forget_key(key)
  if key:sub(1, 5) == "name:" then state.known_names = nil end
end

-- Instances came or went: what belongs to others now, or did meanwhile, is forgotten here.
function Init.on_moved()
  Players.moved()
  state.known_names = nil
end

function Init.on_peer(instance, up)
  if up or not instance:match("^connector%-") then return end
  Online.connector_away(instance)
end

return Init
