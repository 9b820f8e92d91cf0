-- What a player carries.
local Items = require "tables.items"
local Players = require "players"

local Handler = {}

-- change: {item, count} that this request makes, shown though it is applied with the answer.
local function bag_of(player, item, count)
  local items = {}
  for id, has in pairs(player.bag) do
    if id == item then has = has + count end
    if has > 0 then items[#items + 1] = { item = id, count = has } end
  end
  table.sort(items, function(a, b) return a.item < b.item end)
  return { items = json.array(items) }
end

-- Yields when the player is not in memory.
function Handler.list(session)
  local player, err, why = Players.with_role(session.uid)
  if not player then return nil, err, why end
  return bag_of(player)
end

local function take(player, msg)
  if msg.count < 1 or msg.count > 999 then return nil, "bad_request", "count: expected 1 to 999" end
  if (player.bag[msg.item] or 0) < msg.count then return nil, "denied", "you do not have so many" end
  Players.add_item(player, msg.item, -msg.count)
  return true
end

-- Uses items up; some give experience. Yields when the player is not in memory.
function Handler.use(session, msg)
  local player, err, why = Players.with_role(session.uid)
  if not player then return nil, err, why end
  local item = Items[msg.item]
  if not item then return nil, "not_found", "there is no such item" end
  local ok
  ok, err, why = take(player, msg)
  if not ok then return nil, err, why end
  if item.exp then Players.gain(player, item.exp * msg.count, 0) end
  return bag_of(player, msg.item, -msg.count)
end

-- Throws items away. Yields when the player is not in memory.
function Handler.drop(session, msg)
  local player, err, why = Players.with_role(session.uid)
  if not player then return nil, err, why end
  local ok
  ok, err, why = take(player, msg)
  if not ok then return nil, err, why end
  return bag_of(player, msg.item, -msg.count)
end

return Handler
