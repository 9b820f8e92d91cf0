-- What players do in the world. The server checks every step and every blow.
local Monsters = require "monsters"
local Rules = require "rules"
local World = require "world"

local Handler = {}

local function save_place(player, scene, gone)
  app.send.role.roleRemote.place(player.uid,
    { uid = player.uid, scene = scene.number, x = player.x, y = player.y, gone = gone })
end

-- Comes into a scene, or looks around anew. Yields (asks role, and the owner of the other scene).
function Handler.enter(session, msg)
  local role, err, why = app.rpc.role.roleRemote.get(session.uid, { uid = session.uid })
  if not role then return nil, err, why end
  local player, scene = World.find(session.uid)
  local number = msg.scene or scene and scene.number or role.scene
  if number < 1 or number > World.count() then return nil, "not_found", "scene: there is no such scene" end
  local same = role.scene == number
  if player and scene.number ~= number then
    World.leave(scene, player)
  end
  local answer
  answer, err, why = app.rpc.scene.sceneRemote.join(tostring(number), {
    scene = number, uid = session.uid, connector = session.connector, sid = session.sid, role_id = role.id,
    name = role.name, level = role.level, x = same and role.x or nil, y = same and role.y or nil,
  })
  if not answer then return nil, err, why end
  session:set("scene", tostring(number))
  return answer
end

local function finite(v) return v == v and v ~= math.huge and v ~= -math.huge end

-- The farthest point on the way that can be reached at the player's speed since its last accepted move.
function Handler.move(session, msg)
  local x, y = msg.x, msg.y
  if not finite(x) or not finite(y) then return nil, "bad_request", "x, y: expected finite numbers" end
  local player, scene = World.find(session.uid)
  if not player then return nil, "not_found", "you are in no scene: scene.enter first" end
  if player.hp == 0 then return nil, "denied", "you are dead" end
  x = math.max(0.0, math.min(Rules.width, x))
  y = math.max(0.0, math.min(Rules.height, y))
  local now = clock.now_ms()
  local elapsed = math.min(now - player.moved_ms, Rules.counted_ms_max)
  local reach = Rules.speed * elapsed / 1000 * Rules.tolerance
  local dx, dy = x - player.x, y - player.y
  local distance = math.sqrt(dx * dx + dy * dy)
  if distance > reach then
    local share = reach / distance
    x, y = player.x + dx * share, player.y + dy * share
  end
  player.moved_ms = now
  World.place(scene, player, x, y)
  if now - (player.saved_ms or player.moved_ms) >= Rules.save_ms then
    player.saved_ms = now
    save_place(player, scene)
  end
  player.saved_ms = player.saved_ms or now
  return { x = x, y = y }
end

function Handler.attack(session, msg)
  local player, scene = World.find(session.uid)
  if not player then return nil, "not_found", "you are in no scene: scene.enter first" end
  local target = scene.entities[msg.target]
  if not target or target.kind == "drop" then return nil, "not_found", "the target is gone" end
  if player.hp == 0 then return nil, "denied", "you are dead" end
  if target.kind ~= "monster" then return nil, "denied", "only monsters can be attacked" end
  local now = clock.now_ms()
  if now - player.attack_ms < Rules.cooldown_ms then return nil, "denied", "cooling down" end
  local dx, dy = target.x - player.x, target.y - player.y
  if dx * dx + dy * dy > Rules.range * Rules.range then return nil, "denied", "out of range" end
  player.attack_ms = now
  local damage, dead = Monsters.hit(scene, target, player)
  return { damage = damage, dead = dead }
end

function Handler.echo(_, msg)
  return msg
end

return Handler
