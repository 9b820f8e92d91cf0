-- What services ask of a scene's owner. Keyed by the scene's number.
local World = require "world"

local Remote = {}

function Remote.echo(args)
  return args
end

-- A player comes in from another scene's worker, or from nowhere.
function Remote.join(args)
  local there, scene = World.find(args.uid)
  if there and scene.number ~= args.scene then World.leave(scene, there) end
  local answer = World.join(args)
  app.send.role.roleRemote.place(args.uid, { uid = args.uid, scene = args.scene, x = answer.x, y = answer.y })
  app.send.chat.chatRemote.place(args.uid, { uid = args.uid, channel = "scene", value = tostring(args.scene) })
  return answer
end

-- The player is gone for good.
function Remote.leave(args)
  local player, scene = World.find(args.uid)
  if player and (not args.scene or scene.number == args.scene) then
    app.send.role.roleRemote.place(args.uid,
      { uid = args.uid, scene = scene.number, x = player.x, y = player.y, gone = true })
    World.leave(scene, player)
  end
  return {}
end

-- The player's connection changed: pushes go to the new one.
function Remote.rebind(args)
  local player, scene = World.find(args.uid)
  if not player then return { there = false } end
  World.bind(scene, player, args)
  return { there = true }
end

return Remote
