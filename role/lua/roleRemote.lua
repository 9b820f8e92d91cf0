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

-- Of who has gone and is not in memory any more.
local function leave_at(args)
  db.key(Players.key("uid", args.uid))
  db.exec("UPDATE role SET scene = ?, x = ?, y = ? WHERE uid = ?", args.scene, args.x, args.y, args.uid)
  db.relaxed()
  return {}
end

-- Where a player stands: written without waiting for the disk, it is only where they come back. Yields
-- when the player is not in memory.
function Remote.place(args)
  local player, has_place = Players.presence(args.uid), args.scene and args.x and args.y
  if not player and not args.gone then player = Players.found(args.uid) end
  if player then
    player.scene = not args.gone and args.scene or nil
  elseif not has_place then
    return {}
  elseif not state.loading[args.uid] then
    return leave_at(args)
  end
  if has_place then
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

-- Why it cannot be given, or nil.
local function check_reward(player, args)
  for _, field in ipairs { "exp", "gold" } do
    local amount = args[field] or 0
    if amount < 0 or amount > Players.room_for(player, field) then
      return field .. ": too much, or less than nothing"
    end
  end
  local count = args.item and (args.count or 1)
  if count and (count < 1 or count > Players.room_for_item(player, args.item)) then
    return "count: too many, or fewer than one"
  end
end

-- A kill's reward: a once-method. Yields when the player is not in memory.
function Remote.reward(args)
  local player, err, why = Players.with_role(args.uid)
  if not player then return nil, err, why end
  local bad = check_reward(player, args)
  if bad then return nil, "bad_request", bad end
  local answer = Players.gain(player, args.exp or 0, args.gold or 0)
  if args.item then Players.add_item(player, args.item, args.count or 1) end
  if args.killed then count_kill(player, args.killed) end
  return answer
end

-- A payment: gems, a once-method by its order. Yields when the player is not in memory.
function Remote.grant(args)
  local player, err, why = Players.with_role(args.uid)
  if not player then return nil, err, why end
  if args.gems < 0 or args.gems > Players.room_for(player, "gems") then
    return nil, "bad_request", "gems: too many, or fewer than none"
  end
  local gems = player.role.gems + args.gems
  Players.add(player, "gems", args.gems)
  return { gems = gems }
end

return Remote
