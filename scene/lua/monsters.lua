-- Slimes: they wander, hunt who comes near, fight back, die, drop and come back. Each thinks on a timer of its own, by
-- name, so that a reload changes how those think that are alive.
local Rewards = require "rewards"
local Rules = require "rules"
local World = require "world"

local Monsters = {}
local SLIME = Rules.slime

local function roll(range) return math.random(range[1], range[2]) end

local function home()
  -- around the middle, where players arrive
  local angle, radius = math.random() * 2 * math.pi, 40 + math.random() * 900
  return Rules.width / 2 + radius * math.cos(angle), Rules.height / 2 + radius * math.sin(angle)
end

local function new_slime(scene)
  local x, y = home()
  return World.add(scene, {
    kind = "monster", name = SLIME.name, x = x, y = y, home_x = x, home_y = y, hp = SLIME.hp, hp_max = SLIME.hp,
    attack_ms = 0,
  })
end

local function step(scene, slime, x, y)
  local dx, dy = x - slime.x, y - slime.y
  local distance = math.sqrt(dx * dx + dy * dy)
  local reach = SLIME.speed * SLIME.think_ms / 1000
  if distance < 0.5 then return end
  local share = math.min(1, reach / distance)
  World.place(scene, slime, slime.x + dx * share, slime.y + dy * share)
end

local function respawn_player(scene, player)
  clock.after(Rules.respawn_ms, function()
    if player.gone then return end
    World.heal(scene, player)
    World.spawn(scene, player)
  end)
end

local function bite(scene, slime, player)
  local now = clock.now_ms()
  if now - slime.attack_ms < SLIME.attack_ms then return end
  slime.attack_ms = now
  World.hurt(scene, player, roll(SLIME.damage))
  if player.hp == 0 then respawn_player(scene, player) end
end

function Monsters.think(scene, slime)
  local prey = World.nearest_player(scene, slime.x, slime.y, SLIME.sight)
  if prey then
    local dx, dy = prey.x - slime.x, prey.y - slime.y
    if dx * dx + dy * dy <= SLIME.range * SLIME.range then
      bite(scene, slime, prey)
    else
      step(scene, slime, prey.x, prey.y)
    end
  elseif math.random() < 0.3 then
    step(scene, slime, slime.home_x + math.random(-30, 30), slime.home_y + math.random(-30, 30))
  end
end

local function start_thinking(scene, slime)
  slime.timer = clock.every(SLIME.think_ms, "monsters.think", scene, slime)
end

function Monsters.come_back(scene)
  if not scene.awake then
    scene.missing = (scene.missing or 0) + 1
    return
  end
  start_thinking(scene, new_slime(scene))
end

local function drop(scene, slime)
  local thing = World.add(scene, {
    kind = "drop", name = "slime jelly", x = slime.x, y = slime.y, hp = 1, hp_max = 1,
  })
  clock.after(SLIME.drop_ms, function() World.remove(scene, thing) end)
end

-- A player has killed it: the reward is the role's to give, once.
local function die(scene, slime, killer)
  local lucky = math.random() < SLIME.drop_chance
  if slime.timer then slime.timer:cancel() end
  World.remove(scene, slime)
  if lucky then drop(scene, slime) end
  clock.after(SLIME.back_ms, "monsters.come_back", scene)
  Rewards.give(killer.uid, {
    uid = killer.uid, exp = SLIME.exp, gold = SLIME.gold, killed = SLIME.name,
    item = lucky and SLIME.item or nil, count = lucky and 1 or nil,
  })
end

-- damage, dead
function Monsters.hit(scene, slime, killer)
  local damage = roll(Rules.damage)
  World.hurt(scene, slime, damage)
  if slime.hp == 0 then die(scene, slime, killer) end
  return damage, slime.hp == 0
end

function Monsters.populate(scene)
  for _ = 1, app.config("scene.monsters", 40) do new_slime(scene) end
end

function Monsters.wake(scene)
  scene.awake = true
  for _ = 1, scene.missing or 0 do new_slime(scene) end
  scene.missing = 0
  local slimes = {}
  for _, e in pairs(scene.entities) do
    if e.kind == "monster" then slimes[#slimes + 1] = e end
  end
  table.sort(slimes, function(a, b) return a.id < b.id end)
  for _, e in ipairs(slimes) do
    if not e.timer then start_thinking(scene, e) end
  end
end

function Monsters.sleep(scene)
  scene.awake = false
  for _, e in pairs(scene.entities) do
    if e.timer then
      e.timer:cancel()
      e.timer = nil
    end
  end
end

return Monsters
