-- Quests: kill, collect, talk; rewarded once.
local ann

test.before(function()
  ann = test.session("ann")
  test.call("role.roleRemote.login", "ann",
    { uid = "ann", connector = ann.connector, sid = ann.sid, guest = true, create = true })
end)

local function quest(method, number) return ann:request("role.questHandler." .. method, { quest = number }) end

local function kill(name)
  return test.call("role.roleRemote.reward", "ann",
    { uid = "ann", exp = 10, gold = 3, killed = name, item = 5, count = 1 }, { from = "scene-1" })
end

test("all quests are listed, open at first", function()
  local list = ann:request("role.questHandler.list").quests
  test.equal(#list, 3)
  for _, q in ipairs(list) do test.has(q, { state = "open", progress = 0 }) end
end)

test("a quest is accepted once", function()
  test.has(quest("accept", 1).quest, { state = "accepted", progress = 0 })
  test.refused(quest("accept", 1), "denied")
  test.refused(quest("accept", 9), "not_found")
end)

test("kills count for who has accepted the quest, and for the right monster", function()
  kill("slime")
  quest("accept", 1)
  kill("slime")
  kill("dragon")
  test.has(quest("progress", 1).quest, { state = "accepted", progress = 1 })
  kill("slime")
  kill("slime")
  test.has(quest("progress", 1).quest, { state = "done", progress = 3 })
end)

test("a quest handed in is rewarded, once", function()
  quest("accept", 3)
  test.refused(quest("submit", 3), "denied", "accepted")
  test.has(quest("progress", 3).quest, { state = "done" })
  test.has(quest("submit", 3).quest, { state = "rewarded" })
  test.refused(quest("submit", 3), "denied", "rewarded")
  test.has(ann:request("role.roleHandler.get").role, { gold = 1005, exp = 10 })
end)

test("what was collected is taken when it is handed in", function()
  quest("accept", 2)
  for _ = 1, 6 do kill("slime") end
  test.has(quest("submit", 2).quest, { state = "rewarded" })
  test.equal(ann:request("role.bagHandler.list").items, { { item = 5, count = 1 } })
end)

test("experience lifts the level", function()
  test.call("role.roleRemote.reward", "ann", { uid = "ann", exp = 400 }, { from = "scene-1" })
  test.has(ann:request("role.roleHandler.get").role, { level = 3, exp = 400 })
end)

test("quests are read back from the database", function()
  quest("accept", 1)
  kill("slime")
  test.turn(31000)                        -- forgotten: no connection was bound again
  test.call("role.roleRemote.logout", "ann", { uid = "ann", connector = ann.connector, sid = ann.sid })
  test.turn(31000)
  test.holds(not state.players.ann, "forgotten")
  test.has(quest("progress", 1).quest, { state = "accepted", progress = 1 })
end)
