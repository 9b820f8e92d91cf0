-- Where a player listens. Keyed by uid.
local Remote = {}

local function leave(room, member)
  app.send.chat.roomRemote.leave(room, { room = room, member = member })
end

local function join(room, member)
  return app.rpc.chat.roomRemote.join(room, { room = room, member = member })
end

local function same_room(a, b) return a and b and a.rid == b.rid end

-- A player enters a chat room; the others get onAdd. A player is in one room: the older one is left. Yields.
function Remote.add(args)
  local member, rid = args.member, args.rid
  local before = state.players[member.uid]
  local player = { member = member, rid = rid, scene = before and before.scene, team = before and before.team }
  if before and not same_room(before, player) then leave("room:" .. before.rid, before.member) end
  state.players[member.uid] = player
  app.send.chat.nameRemote.set(member.name, { member = member })
  app.send.chat.roomRemote.join("world:", { room = "world:", member = member })
  for _, channel in ipairs { "scene", "team" } do
    local value = player[channel]
    if value then
      local room = channel .. ":" .. value
      app.send.chat.roomRemote.join(room, { room = room, member = member })
    end
  end
  return join("room:" .. rid, member)
end

-- The connection is lost. The rooms learn of that themselves.
function Remote.remove(args)
  local player = state.players[args.uid]
  local member = player and player.member
  if not member or member.sid ~= args.sid or member.connector ~= args.connector then return {} end
  state.players[args.uid] = nil
  app.send.chat.nameRemote.clear(member.name, { member = member })
  return {}
end

-- The player is called otherwise: to the others of the room the old name leaves and the new one comes. Yields.
function Remote.rename(args)
  local player = state.players[args.uid]
  local old = player and player.member
  if not old or old.name == args.name then return {} end
  local member = { uid = old.uid, name = args.name, connector = old.connector, sid = old.sid }
  player.member = member
  app.send.chat.nameRemote.clear(old.name, { member = old })
  local rooms = { "room:" .. player.rid, "world:" }
  for _, channel in ipairs { "scene", "team" } do
    if player[channel] then rooms[#rooms + 1] = channel .. ":" .. player[channel] end
  end
  for _, room in ipairs(rooms) do
    leave(room, old)
    app.send.chat.roomRemote.join(room, { room = room, member = member })
  end
  return app.rpc.chat.nameRemote.set(member.name, { member = member })
end

-- The scene or the team a player is in has changed.
function Remote.place(args)
  local player = state.players[args.uid]
  if not player or (args.channel ~= "scene" and args.channel ~= "team") then return {} end
  local before = player[args.channel]
  if before == args.value then return {} end
  if before then leave(args.channel .. ":" .. before, player.member) end
  player[args.channel] = args.value
  if args.value then
    local room = args.channel .. ":" .. args.value
    app.send.chat.roomRemote.join(room, { room = room, member = player.member })
  end
  return {}
end

return Remote
