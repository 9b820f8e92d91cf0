-- The scenes this worker owns: who and what is in them, and what each player is told of it.
--
-- state.scenes[number] = { number, players {uid → player}, entities {id → entity}, cells, tick, order, … }
-- An entity is { id, kind, name, x, y, hp, hp_max, rev, cell }; rev grows with its place, hp_rev with its hp.
-- A player is an entity with uid, session, known {id → rev}, moved_ms, attack_ms, slot.
local Rules = require "rules"

local World = {}

state.scenes = state.scenes or {}
state.where = state.where or {}          -- uid → scene that this worker holds the player in
state.next_id = state.next_id or 0

local VIEW2 = Rules.view * Rules.view
local CELL = Rules.view
local COLUMNS = math.ceil(Rules.width / CELL) + 1
local VIEW_MAX = app.config("scene.view_max", 32)
local floor = math.floor

-- ---- entities and the grid ------------------------------------------------------------------

local function cell_of(x, y)
  return floor(y / CELL) * COLUMNS + floor(x / CELL)
end

local function put(scene, entity)
  local index = cell_of(entity.x, entity.y)
  local cell = scene.cells[index]
  if not cell then
    cell = {}
    scene.cells[index] = cell
  end
  cell[entity.id] = entity
  entity.cell = index
end

local function take(scene, entity)
  local cell = scene.cells[entity.cell]
  cell[entity.id] = nil
  if not next(cell) then scene.cells[entity.cell] = nil end
end

-- Numbers are unique in the cluster's scenes: the scene's number above a counter.
local function new_id(scene)
  state.next_id = state.next_id + 1
  return scene.number << 32 | state.next_id & 0xffffffff
end

function World.add(scene, entity)
  entity.id = new_id(scene)
  entity.rev, entity.hp_rev = 1, 1
  scene.entities[entity.id] = entity
  put(scene, entity)
  return entity
end

function World.remove(scene, entity)
  take(scene, entity)
  scene.entities[entity.id] = nil
  entity.gone = true
end

function World.place(scene, entity, x, y)
  entity.x, entity.y = x, y
  entity.rev = entity.rev + 1
  if cell_of(x, y) ~= entity.cell then
    take(scene, entity)
    put(scene, entity)
  end
end

function World.hurt(entity, damage)
  entity.hp = math.max(0, entity.hp - damage)
  entity.hp_rev = entity.hp_rev + 1
end

-- What clients see of an entity.
function World.show(entity)
  return {
    id = entity.id, kind = entity.kind, name = entity.name, x = entity.x, y = entity.y, hp = entity.hp,
    hp_max = entity.hp_max,
  }
end

-- The nearest player to a point within a distance, or nil.
function World.nearest_player(scene, x, y, distance)
  local best, best_d = nil, distance * distance
  local column, row = floor(x / CELL), floor(y / CELL)
  for r = row - 1, row + 1 do
    for c = column - 1, column + 1 do
      local cell = scene.cells[r * COLUMNS + c]
      if cell then
        for _, e in pairs(cell) do
          if e.uid and e.hp > 0 then
            local dx, dy = e.x - x, e.y - y
            local d = dx * dx + dy * dy
            if d < best_d or d == best_d and best and e.id < best.id then best, best_d = e, d end
          end
        end
      end
    end
  end
  return best
end

-- ---- what a player sees ------------------------------------------------------------------

local function by_distance(a, b)
  if a.distance ~= b.distance then return a.distance < b.distance end
  return a.entity.id < b.entity.id
end

-- All entities in view; of players only the nearest VIEW_MAX, oneself not counted.
local function visible(scene, player)
  local px, py = player.x, player.y
  local column, row = floor(px / CELL), floor(py / CELL)
  local seen, n, players = {}, 0, 0
  for r = row - 1, row + 1 do
    local base = r * COLUMNS
    for c = column - 1, column + 1 do
      local cell = scene.cells[base + c]
      if cell then
        for _, e in pairs(cell) do
          local dx, dy = e.x - px, e.y - py
          if dx * dx + dy * dy <= VIEW2 and e ~= player then
            n = n + 1
            seen[n] = e
            if e.uid then players = players + 1 end
          end
        end
      end
    end
  end
  if players <= VIEW_MAX then return seen, n end
  local ranked, kept = {}, {}
  for i = 1, n do
    local e = seen[i]
    if e.uid then
      local dx, dy = e.x - px, e.y - py
      ranked[#ranked + 1] = { entity = e, distance = dx * dx + dy * dy }
    else
      kept[#kept + 1] = e
    end
  end
  table.sort(ranked, by_distance)
  for i = 1, VIEW_MAX do kept[#kept + 1] = ranked[i].entity end
  return kept, #kept
end

local function by_id(a, b) return a.id < b.id end

-- The whole view, oneself included; the player is told changes from here on.
function World.look(scene, player)
  local seen, n = visible(scene, player)
  local entities, known = { World.show(player) }, {}
  table.sort(seen, by_id)
  for i = 1, n do
    local e = seen[i]
    known[e.id] = e.rev
    player.known_hp[e.id] = e.hp_rev
    entities[i + 1] = World.show(e)
  end
  player.known = known
  player.told_hp = player.hp_rev
  return entities
end

-- What has changed for the player since it was last told; nil: nothing.
local function changes(scene, player)
  local seen, n = visible(scene, player)
  local known, known_hp, now = player.known, player.known_hp, {}
  local enter, leave, move, hp
  for i = 1, n do
    local e = seen[i]
    local id, rev, was = e.id, e.rev, known[e.id]
    now[id] = rev
    if not was then
      enter = enter or {}
      enter[#enter + 1] = World.show(e)
      known_hp[id] = e.hp_rev
    else
      if was ~= rev then
        move = move or {}
        move[#move + 1] = { id = id, x = e.x, y = e.y }
      end
      if known_hp[id] ~= e.hp_rev then
        known_hp[id] = e.hp_rev
        hp = hp or {}
        hp[#hp + 1] = { id = id, hp = e.hp }
      end
    end
  end
  for id in pairs(known) do
    if not now[id] then
      leave = leave or {}
      leave[#leave + 1] = id
      known_hp[id] = nil
    end
  end
  player.known = now
  if player.told_hp ~= player.hp_rev then
    player.told_hp = player.hp_rev
    hp = hp or {}
    hp[#hp + 1] = { id = player.id, hp = player.hp }
  end
  if not (enter or leave or move or hp or player.thrown) then return nil end
  if enter then table.sort(enter, by_id) end
  if leave then table.sort(leave) end
  if move then table.sort(move, by_id) end
  if player.thrown then   -- moved by the world, not by oneself
    move = move or {}
    move[#move + 1] = { id = player.id, x = player.x, y = player.y }
    player.thrown = nil
  end
  return { tick = scene.tick, enter = enter, leave = leave, move = move, hp = hp }
end

-- ---- the tick ------------------------------------------------------------------

-- Players are told in turn, so that a crowd costs a bounded share of each tick.
local function tell(scene)
  local order = scene.order
  local count = #order
  local budget = math.min(count, Rules.updates_per_tick)
  for _ = 1, budget do
    scene.cursor = scene.cursor % count + 1
    local player = order[scene.cursor]
    local update = changes(scene, player)
    if update then app.push(player.session, "onSceneUpdate", update) end
  end
end

function World.tick(scene)
  scene.tick = scene.tick + 1
  if #scene.order > 0 then tell(scene) end
end

-- ---- scenes ------------------------------------------------------------------

function World.count()
  return app.config("scene.count", 4)
end

function World.scene(number)
  local scene = state.scenes[number]
  if scene then return scene end
  scene = {
    number = number, players = {}, entities = {}, cells = {}, tick = 0, order = {}, cursor = 0, slots = {}, free = {},
  }
  state.scenes[number] = scene
  require("monsters").populate(scene)
  return scene
end

-- A scene's clocks run only while somebody is there.
local function wake(scene)
  if scene.timer then return end
  scene.timer = clock.every(Rules.tick_ms, function() require("world").tick(scene) end)
  require("monsters").wake(scene)
end

local function sleep(scene)
  if scene.timer then scene.timer:cancel() end
  scene.timer = nil
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

local function take_slot(scene)
  local slot = table.remove(scene.free)
  if slot then return slot end
  scene.slots_used = (scene.slots_used or -1) + 1
  return scene.slots_used
end

local function is_inside(x, y)
  return x and y and x > 0 and y > 0 and x < Rules.width and y < Rules.height
end

function World.spawn(scene, player)
  local x, y = spawn_point(player.slot)
  World.place(scene, player, x, y)
  player.thrown = true
end

local function new_player(scene, args)
  local slot = take_slot(scene)
  local x, y = args.x, args.y
  if not is_inside(x, y) then x, y = spawn_point(slot) end
  local player = World.add(scene, {
    kind = "player", name = args.name, x = x, y = y, hp = Rules.hp, hp_max = Rules.hp, uid = args.uid, slot = slot,
    known = {}, known_hp = {}, moved_ms = clock.now_ms(), attack_ms = 0,
  })
  scene.players[args.uid] = player
  scene.order[#scene.order + 1] = player
  player.place_in_order = #scene.order
  state.where[args.uid] = scene
  wake(scene)
  return player
end

-- A player comes in, or looks around anew: known players keep their place.
function World.join(args)
  local scene = World.scene(args.scene)
  local player = scene.players[args.uid] or new_player(scene, args)
  player.session = { uid = args.uid, sid = args.sid, connector = args.connector }
  return {
    scene = scene.number, id = player.id, x = player.x, y = player.y, width = Rules.width, height = Rules.height,
    view = Rules.view, speed = Rules.speed, range = Rules.range, cooldown_ms = Rules.cooldown_ms,
    entities = World.look(scene, player),
  }
end

function World.leave(scene, player)
  local last = table.remove(scene.order)
  if last ~= player then
    scene.order[player.place_in_order] = last
    last.place_in_order = player.place_in_order
  end
  scene.players[player.uid] = nil
  state.where[player.uid] = nil
  scene.free[#scene.free + 1] = player.slot
  World.remove(scene, player)
  if #scene.order == 0 then sleep(scene) end
end

-- The player and its scene, or nil when this worker does not hold it.
function World.find(uid)
  local scene = state.where[uid]
  if scene then return scene.players[uid], scene end
end

return World
