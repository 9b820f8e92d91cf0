-- Moving, seeing, fighting.
local Rules = require "rules"
local World = require "world"

test.before(function()
  test.config("scene.monsters", 1)
  test.fake("role.roleRemote.get", function(args)
    return { id = 1, uid = args.uid, name = args.uid, level = 1, scene = 1 }
  end)
  test.fake("role.roleRemote.reward", { exp = 10, gold = 3 })
end)

local function enter(uid, scene)
  local session = test.session(uid)
  return session, session:request("scene.sceneHandler.enter", { scene = scene })
end

local function slime_of(scene)
  for _, e in pairs(World.scene(scene).entities) do
    if e.kind == "monster" then return e end
  end
end

-- Puts the player beside the monster.
local function meet(uid)
  local player, scene = World.find(uid)
  local slime = slime_of(scene.number)
  World.place(scene, player, slime.x, slime.y)
  return slime, player, scene
end

test("who enters sees itself first and stands where the session says", function()
  local ann, answer = enter("ann", 2)
  test.has(answer, { code = 200, scene = 2, width = Rules.width, speed = Rules.speed })
  test.has(answer.entities[1], { id = answer.id, kind = "player", name = "ann", hp = Rules.hp })
  test.equal(ann.attributes.scene, "2")
  test.equal(test.calls("chat.chatRemote.place")[1].args, { uid = "ann", channel = "scene", value = "2" })
end)

test("a role that was started anew is told who stands here, when it can be reached", function()
  local told, there = {}, false
  enter("ann", 2)
  enter("bob", 1)
  test.fake("role.roleRemote.place", function(args)
    if not there then return nil, "unavailable", "it is away", "none" end
    told[#told + 1] = args
    return {}
  end)
  test.peer("chat-1", false)
  test.peer("role-1", true)
  test.turn(2000)
  test.equal(#told, 0)
  app.task(test.peer, "role-1", false)
  test.turn(2500)
  there = true
  test.turn(2000)
  test.equal(told, { { uid = "ann", scene = 2 }, { uid = "bob", scene = 1 } })
  World.leave(select(2, World.find("bob")), (World.find("bob")))
  app.task(test.peer, "role-1", false)
  test.turn(2000)
  test.equal(told[3], { uid = "ann", scene = 2 })
  test.equal(#told, 3)
end)

test("new code is run by those who are alive", function()
  local Monsters = require "monsters"
  local think, tick, thoughts, ticks = Monsters.think, World.tick, {}, 0
  enter("ann", 2)
  Monsters.think = function(scene, slime) thoughts[#thoughts + 1] = { scene, slime } end
  World.tick = function(scene) ticks = ticks + scene.number end
  test.turn(1100)
  Monsters.think, World.tick = think, tick
  test.holds(#thoughts >= 2 and ticks >= 20)
  test.holds(thoughts[1][1] == World.scene(2) and thoughts[1][2] == slime_of(2))
end)

test("a scene that is not there is not found", function()
  local _, answer = enter("ann", 9)
  test.refused(answer, "not_found", "scene")
  _, answer = enter("ann", 0)
  test.refused(answer, "not_found", "scene")
end)

test("without a role nobody enters", function()
  test.fake("role.roleRemote.get", function() return nil, "not_found", "no role" end)
  local _, answer = enter("ann", 1)
  test.refused(answer, "not_found", "no role")
end)

test("players see each other, and who leaves is gone", function()
  local ann = enter("ann", 1)
  enter("bob", 1)
  test.turn(200)
  local update = test.holds(ann:pushed("onSceneUpdate"))
  test.equal(update.enter[1].name, "bob")
  test.call("scene.sceneRemote.leave", "1", { uid = "bob" }, { from = "role-1" })
  test.turn(200)
  test.equal(ann:pushed("onSceneUpdate").leave, { update.enter[1].id })
end)

test("of players nobody sees more than view_max, oneself counted", function()
  test.config("scene.view_max", 3)
  for i = 1, 5 do enter("p" .. i, 1) end
  local _, answer = enter("ann", 1)
  local players = 0
  for _, e in ipairs(answer.entities) do
    if e.kind == "player" then players = players + 1 end
  end
  test.equal(players, 3)
  test.equal(answer.entities[1].id, answer.id)
end)

test("a step is as far as one's speed allows", function()
  local ann, first = enter("ann", 1)
  test.turn(500)
  local answer = ann:request("scene.sceneHandler.move", { x = first.x + 1000, y = first.y })
  local most = Rules.speed * 0.5 * Rules.tolerance
  test.holds(math.abs(answer.x - first.x - most) < 0.5, "moved by " .. answer.x - first.x)
  test.equal(answer.y, first.y)
end)

test("standing still for long allows no jump", function()
  local ann, first = enter("ann", 1)
  test.turn(60000)
  local answer = ann:request("scene.sceneHandler.move", { x = first.x + 1000, y = first.y })
  test.holds(answer.x - first.x <= Rules.speed * Rules.tolerance + 0.001)
end)

test("a step ends at the map's edge", function()
  local ann = enter("ann", 1)
  local player, scene = World.find("ann")
  World.place(scene, player, 1.0, 1.0)
  test.turn(1000)
  test.has(ann:request("scene.sceneHandler.move", { x = -50.0, y = 1.0 }), { x = 0.0, y = 1.0 })
end)

test("what is no number is refused, and who is nowhere cannot move", function()
  local ann = enter("ann", 1)
  test.refused(ann:request("scene.sceneHandler.move", { x = "a", y = 0 }), "bad_request", "x")
  test.refused(ann:request("scene.sceneHandler.move", { x = 1 }), "bad_request", "y")
  test.refused(test.session("bob"):request("scene.sceneHandler.move", { x = 1.0, y = 1.0 }), "not_found")
  test.refused(test.session("bob"):request("scene.sceneHandler.attack", { target = 1 }), "not_found")
end)

test("a place is saved now and then, and when one leaves", function()
  local ann, first = enter("ann", 1)
  for _ = 1, 35 do
    test.turn(1000)
    ann:request("scene.sceneHandler.move", { x = first.x + 1, y = first.y })
  end
  test.equal(#test.calls("role.roleRemote.place"), 2)    -- at the entry, and after save_ms
  test.call("scene.sceneRemote.leave", "1", { uid = "ann" }, { from = "role-1" })
  test.equal(test.calls("role.roleRemote.place")[3].args.gone, true)
end)

test("an attack needs a target in range, and its time", function()
  local ann = enter("ann", 1)
  local slime, player, scene = meet("ann")
  World.place(scene, player, slime.x + Rules.range + 10, slime.y)
  local function attack() return ann:request("scene.sceneHandler.attack", { target = slime.id }) end
  test.refused(attack(), "denied", "range")
  World.place(scene, player, slime.x, slime.y)
  test.has(attack(), { code = 200, dead = false })
  test.refused(attack(), "denied", "cooling")
  test.refused(ann:request("scene.sceneHandler.attack", { target = player.id }), "denied", "monsters")
  test.refused(ann:request("scene.sceneHandler.attack", { target = 12345 }), "not_found")
end)

test("a kill is rewarded by the role, once, and the monster comes back", function()
  local ann = enter("ann", 1)
  local slime
  for _ = 1, 10 do
    slime = meet("ann")
    if ann:request("scene.sceneHandler.attack", { target = slime.id }).dead then break end
    test.turn(Rules.cooldown_ms)
  end
  test.equal(slime.hp, 0)
  test.turn(100)
  test.equal(#test.calls("role.roleRemote.reward"), 1)
  test.has(test.calls("role.roleRemote.reward")[1].args, { uid = "ann", exp = 10, gold = 3, killed = "slime" })
  test.equal(slime_of(1), nil)
  test.turn(Rules.slime.back_ms)
  test.holds(slime_of(1))
end)

test("a reward is asked for until the role can be reached", function()
  local tries = 0
  test.fake("role.roleRemote.reward", function()
    tries = tries + 1
    if tries < 3 then return nil, "unavailable", "restarting", "none" end
    return { exp = 10, gold = 3 }
  end)
  require("rewards").give("ann", { uid = "ann", exp = 1 })
  test.turn(10000)
  test.equal(tries, 3)
end)

test("a reward whose outcome is known is not asked for again", function()
  local tries = 0
  test.fake("role.roleRemote.reward", function()
    tries = tries + 1
    return nil, "not_found", "no role"
  end)
  require("rewards").give("ann", { uid = "ann", exp = 1 })
  test.turn(10000)
  test.equal(tries, 1)
  test.holds(test.log():find("reward.failed", 1, true))
end)

test("a reward that may have been given is not given again", function()
  for _, effect in ipairs { "unknown", "done" } do
    local tries = 0
    test.fake("role.roleRemote.reward", function()
      tries = tries + 1
      return nil, "unavailable", "its link broke", effect
    end)
    require("rewards").give("ann", { uid = "ann", exp = 1 })
    test.turn(10000)
    test.equal(tries, 1)
  end
end)

test("slimes bite who is near, and the dead come to life at a spawn point", function()
  local ann = enter("ann", 1)
  local _, player = meet("ann")
  World.hurt(World.scene(1), player, Rules.hp - 1)
  test.turn(Rules.slime.attack_ms + 1500)
  test.equal(player.hp, 0)
  test.refused(ann:request("scene.sceneHandler.move", { x = 1.0, y = 1.0 }), "denied", "dead")
  test.turn(Rules.respawn_ms)
  test.equal(player.hp, Rules.hp)
end)

test("a player who goes to another scene leaves the first", function()
  local ann = enter("ann", 1)
  test.has(ann:request("scene.sceneHandler.enter", { scene = 2 }), { scene = 2 })
  test.equal(World.scene(1).count, 0)
  test.equal(World.scene(2).count, 1)
end)

test("a new connection of a player is told the view", function()
  enter("ann", 1)
  local again = test.session("ann")
  test.equal(test.call("scene.sceneRemote.rebind", "1", { uid = "ann", connector = again.connector, sid = again.sid }),
    { there = true })
  enter("bob", 1)
  test.turn(200)
  test.holds(again:pushed("onSceneUpdate"))
  test.equal(test.call("scene.sceneRemote.rebind", "1", { uid = "eve", connector = "c", sid = 1 }), { there = false })
end)

test("an empty scene's clocks stand still", function()
  enter("ann", 1)
  test.call("scene.sceneRemote.leave", "1", { uid = "ann", scene = 1 }, { from = "role-1" })
  test.turn(100)
  local tick = World.scene(1).tick
  test.turn(5000)
  test.equal(World.scene(1).tick, tick)
end)

test("an echo comes back as it was", function()
  local ann = enter("ann", 1)
  local sent = { list = json.array {}, nothing = json.null, big = 9007199254740993 }
  test.equal(ann:request("scene.sceneHandler.echo", sent), sent)
  test.equal(test.call("scene.sceneRemote.echo", "1", sent), sent)
end)
