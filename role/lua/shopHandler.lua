-- The shop: charged once per order, whatever is lost on the way.
local Items = require "tables.items"
local Players = require "players"

local Handler = {}

local function check(msg)
  if msg.count < 1 or msg.count > 999 then return "count: expected an integer from 1 to 999" end
  if #msg.order < 1 or #msg.order > 64 then return "order: expected 1 to 64 bytes" end
end

-- A once-method by its order: a repeat never comes here. Yields when the player is not in memory.
function Handler.buy(session, msg)
  local bad = check(msg)
  if bad then return nil, "bad_request", bad end
  local player, err, why = Players.with_role(session.uid)
  if not player then return nil, err, why end
  local item = Items[msg.item]
  if not item or not item.price then return nil, "not_found", "item: the shop does not have it" end
  local price = item.price * msg.count
  if player.role.gold < price then return nil, "denied", "not enough gold" end
  if msg.count > Players.room_for_item(player, msg.item) then return nil, "denied", "you cannot carry so many" end
  Players.add(player, "gold", -price)
  Players.add_item(player, msg.item, msg.count)
  return { gold = player.role.gold - price, item = msg.item, count = msg.count }
end

return Handler
