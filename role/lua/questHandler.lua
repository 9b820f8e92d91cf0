-- Quests: kill, collect and talk. Rewards are granted once: the state of the quest is the guard.
local Players = require "players"
local Quests = require "tables.quests"

local Handler = {}

local by_number = {}
for _, quest in ipairs(Quests) do by_number[quest.quest] = quest end

local function progress_of(player, quest, has)
  if quest.kind == "collect" then return math.min(player.bag[quest.item] or 0, quest.goal) end
  return has.progress
end

local function view(player, quest)
  local has = player.quests[quest.quest] or { state = "open", progress = 0 }
  local progress, quest_state = progress_of(player, quest, has), has.state
  if quest_state == "accepted" and progress >= quest.goal then quest_state = "done" end
  return {
    quest = quest.quest, kind = quest.kind, title = quest.title, goal = quest.goal, exp = quest.exp, gold = quest.gold,
    state = quest_state, progress = has.state == "rewarded" and quest.goal or progress,
  }
end

-- The player and the quest's description. Yields when the player is not in memory.
local function find(session, msg)
  local player, err, why = Players.with_role(session.uid)
  if not player then return nil, err, why end
  local quest = by_number[msg.quest]
  if not quest then return nil, "not_found", "there is no such quest" end
  return player, quest
end

-- Yields when the player is not in memory.
function Handler.list(session)
  local player, err, why = Players.with_role(session.uid)
  if not player then return nil, err, why end
  local list = {}
  for i, quest in ipairs(Quests) do list[i] = view(player, quest) end
  return { quests = list }
end

-- Yields when the player is not in memory.
function Handler.accept(session, msg)
  local player, quest, why = find(session, msg)
  if not player then return nil, quest, why end
  if player.quests[quest.quest] then return nil, "denied", "this quest was accepted before" end
  Players.write_quest(player, quest.quest, "accepted", 0)
  local answer = view(player, quest)
  answer.state, answer.progress = "accepted", 0
  return { quest = answer }
end

-- Talk quests are fulfilled by talking; the others tell how far they are. Yields when the player is not in memory.
function Handler.progress(session, msg)
  local player, quest, why = find(session, msg)
  if not player then return nil, quest, why end
  local answer = view(player, quest)
  if quest.kind == "talk" and answer.state == "accepted" then
    Players.write_quest(player, quest.quest, "accepted", quest.goal)
    answer.state, answer.progress = "done", quest.goal
  end
  return { quest = answer }
end

-- Hands the quest in. Yields when the player is not in memory.
function Handler.submit(session, msg)
  local player, quest, why = find(session, msg)
  if not player then return nil, quest, why end
  local answer = view(player, quest)
  if answer.state ~= "done" then return nil, "denied", "this quest is " .. answer.state end
  if quest.kind == "collect" then Players.add_item(player, quest.item, -quest.goal) end
  Players.write_quest(player, quest.quest, "rewarded", quest.goal)
  Players.gain(player, quest.exp, quest.gold)
  answer.state, answer.progress = "rewarded", quest.goal
  return { quest = answer }
end

return Handler
