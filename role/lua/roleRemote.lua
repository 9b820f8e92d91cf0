-- What other services ask of a player's owner: who is online, and changes that take effect once.
local Online = require "online"
local Players = require "players"
local Quests = require "tables.quests"

local Remote = {}

-- Yields when the player is not in memory.
function Remote.get(args)
  local player, err, why = Players.with_role(args.uid)
  if not player then return nil, err, why end
  return player.role
end

Remote.login = Online.login
Remote.logout = Online.logout
Remote.announce = Online.announce

-- Where a player stands: written without waiting for the disk, it is only where they come back. Yields
-- when the player is not in memory.
function Remote.place(args)
  local player = Players.presence(args.uid)
  if not player then return {} end
  player.scene = not args.gone and args.scene or nil
  if args.scene and args.x then
    player = Players.with_role(args.uid)
    if not player then return {} end
    Players.write(player, "scene", args.scene)
    Players.write(player, "x", args.x)
    Players.write(player, "y", args.y)
    db.relaxed()
  end
  return {}
end

local function count_kill(player, kind)
  for _, quest in ipairs(Quests) do
    local has = player.quests[quest.quest]
    local wanted = quest.kind == "kill" and quest.target == kind
    if wanted and has and has.state == "accepted" and has.progress < quest.goal then
      Players.write_quest(player, quest.quest, "accepted", has.progress + 1)
    end
  end
end

-- A kill's reward: a once-method. Yields when the player is not in memory.
function Remote.reward(args)
  local player, err, why = Players.with_role(args.uid)
  if not player then return nil, err, why end
  local answer = Players.gain(player, args.exp or 0, args.gold or 0)
  if args.item then Players.add_item(player, args.item, args.count or 1) end
  if args.killed then count_kill(player, args.killed) end
  return answer
end

-- A payment: gems, a once-method by its order. Yields when the player is not in memory.
function Remote.grant(args)
  local player, err, why = Players.with_role(args.uid)
  if not player then return nil, err, why end
  local gems = player.role.gems + args.gems
  Players.add(player, "gems", args.gems)
  return { gems = gems }
end

return Remote
