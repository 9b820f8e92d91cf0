-- The scenes this worker owns: who and what is in them, and what each player is told of it.
--
-- state.scenes[number] = { number, players {uid → player}, entities {id → entity}, view, tick, count, … }
-- An entity is { id, kind, name, x, y, hp, hp_max }; its scene's view (in C) knows who sees it and has been told of it,
-- so place and hp change by World.place, throw, hurt and heal only.
-- A player is an entity with uid, session, moved_ms, attack_ms, slot.
local Rules = require "rules"

local World = {}

state.scenes = state.scenes or {}
state.where = state.where or {}          -- uid → scene that this worker holds the player in
state.next_id = state.next_id or 0

-- ---- entities ------------------------------------------------------------------

-- Numbers are unique in the cluster's scenes: the scene's number above a counter.
local function new_id(scene)
  state.next_id = state.next_id + 1
  return scene.number << 32 | state.next_id & 0xffffffff
end

function World.add(scene, entity)
  entity.id = new_id(scene)
  scene.entities[entity.id] = entity
  scene.view:add(entity)
  return entity
end

function World.remove(scene, entity)
  scene.view:remove(entity.id)
  scene.entities[entity.id] = nil
  entity.gone = true
end

function World.place(scene, entity, x, y)
  entity.x, entity.y = x, y
  scene.view:move(entity.id, x, y)
end

local function set_hp(scene, entity, hp)
  entity.hp = hp
  scene.view:hp(entity.id, hp)
end

function World.hurt(scene, entity, damage)
  set_hp(scene, entity, math.max(0, entity.hp - damage))
end

function World.heal(scene, entity)
  set_hp(scene, entity, entity.hp_max)
end

-- What clients see of an entity.
function World.show(entity)
  return {
    id = entity.id, kind = entity.kind, name = entity.name, x = entity.x, y = entity.y, hp = entity.hp,
    hp_max = entity.hp_max,
  }
end

-- The nearest living player to a point within a distance, or nil.
function World.nearest_player(scene, x, y, distance)
  local id = scene.view:nearest_player(x, y, distance)
  return id and scene.entities[id]
end

-- The whole view, oneself first; the player is told changes from here on.
function World.look(scene, player)
  local entities = { World.show(player) }
  for i, id in ipairs(scene.view:look(player.id)) do entities[i + 1] = World.show(scene.entities[id]) end
  return entities
end

-- Players are told in turn, so that a crowd costs a bounded share of each tick.
function World.tick(scene)
  scene.tick = scene.tick + 1
  scene.view:tell(Rules.updates_per_tick, scene.tick)
end

-- ---- scenes ------------------------------------------------------------------

function World.count()
  return app.config("scene.count", 4)
end

function World.scene(number)
  local scene = state.scenes[number]
  if scene then return scene end
  scene = {
    number = number, players = {}, entities = {}, tick = 0, count = 0, free = {},
    -- a view counts the others only, and a player's own entity is among those it is told
    view = views.new(Rules.width, Rules.height, Rules.view, app.config("scene.view_max", 32) - 1),
  }
  state.scenes[number] = scene
  require("monsters").populate(scene)
  return scene
end

-- A scene's clocks run only while somebody is there.
local function wake(scene)
  if scene.timer then return end
  scene.timer = clock.every(Rules.tick_ms, "world.tick", scene)
  require("monsters").wake(scene)
end

local function sleep(scene)
  if scene.timer then scene.timer:cancel() end
  scene.timer = nil
  scene.free, scene.slots_used = {}, nil   -- who comes next arrives in the middle again
  require("monsters").sleep(scene)
end

-- ---- players ------------------------------------------------------------------

-- The n-th point of a sunflower: evenly spread around the middle, the first ones near each other.
local function spawn_point(slot)
  local angle, radius = slot * 2.399963229728653, Rules.spacing * math.sqrt(slot) * 0.5641895835477563
  local x = Rules.width / 2 + radius * math.cos(angle)
  local y = Rules.height / 2 + radius * math.sin(angle)
  return math.max(0.0, math.min(Rules.width - 1, x)), math.max(0.0, math.min(Rules.height - 1, y))
end

-- The lowest that is free: few players stand near each other, whoever was there before.
local function take_slot(scene)
  local free, least = scene.free, nil
  for i = 1, #free do
    if not least or free[i] < free[least] then least = i end
  end
  if least then
    local slot = free[least]
    free[least] = free[#free]
    free[#free] = nil
    return slot
  end
  scene.slots_used = (scene.slots_used or -1) + 1
  return scene.slots_used
end

local function is_inside(x, y)
  return x and y and x > 0 and y > 0 and x < Rules.width and y < Rules.height
end

function World.spawn(scene, player)
  local x, y = spawn_point(player.slot)
  player.x, player.y = x, y
  scene.view:throw(player.id, x, y)   -- not its own step: it has to be told
end

local function new_player(scene, args)
  local slot = take_slot(scene)
  local x, y = args.x, args.y
  if not is_inside(x, y) then x, y = spawn_point(slot) end
  local player = World.add(scene, {
    kind = "player", name = args.name, x = x, y = y, hp = Rules.hp, hp_max = Rules.hp, uid = args.uid, slot = slot,
    moved_ms = clock.now_ms(), attack_ms = 0,
  })
  scene.players[args.uid] = player
  scene.count = scene.count + 1
  state.where[args.uid] = scene
  wake(scene)
  return player
end

-- Where the player's connection is; it is told what it sees as if it knew nothing.
function World.bind(scene, player, args)
  player.session = { uid = args.uid, sid = args.sid, connector = args.connector }
  scene.view:watch(player.id, player.session)
end

-- A player comes in, or looks around anew: known players keep their place.
function World.join(args)
  local scene = World.scene(args.scene)
  local player = scene.players[args.uid] or new_player(scene, args)
  player.name = args.name
  World.bind(scene, player, args)
  return {
    scene = scene.number, id = player.id, x = player.x, y = player.y, width = Rules.width, height = Rules.height,
    view = Rules.view, speed = Rules.speed, range = Rules.range, cooldown_ms = Rules.cooldown_ms,
    entities = World.look(scene, player),
  }
end

function World.leave(scene, player)
  scene.players[player.uid] = nil
  state.where[player.uid] = nil
  scene.free[#scene.free + 1] = player.slot
  World.remove(scene, player)
  scene.count = scene.count - 1
  if scene.count == 0 then sleep(scene) end
end

-- The player and its scene, or nil when this worker does not hold it.
function World.find(uid)
  local scene = state.where[uid]
  if scene then return scene.players[uid], scene end
end

return World
