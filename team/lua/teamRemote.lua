-- What others tell a player's owner. Keyed by uid.
local Remote = {}

state.players = state.players or {}

local function tell_team(player, uid, online)
  if not player.team then return end
  app.send.team.groupRemote.change("team:" .. player.team,
    { team = player.team, verb = online and "online" or "leave", uid = uid, online = online, name = player.name })
end

-- A player came online at this session, or is called otherwise from now on; or is gone for good, and leaves the team.
function Remote.online(args)
  local player = state.players[args.uid]
  if args.gone then
    if player then tell_team(player, args.uid, false) end
    state.players[args.uid] = nil
    return {}
  end
  player = player or {}
  state.players[args.uid] = player
  player.name = args.name
  player.session = { uid = args.uid, sid = args.sid, connector = args.connector }
  tell_team(player, args.uid, true)
  return {}
end

function Remote.invited(args)
  local player = state.players[args.uid]
  if not player or not player.session then return { online = false } end
  if player.team then return { online = true, busy = true } end
  app.push(player.session, "onTeam", { event = "invite", team = args.team, from = args.from, name = args.name })
  return { online = true }
end

-- The team has changed, or one is in none any more.
function Remote.joined(args)
  local player = state.players[args.uid]
  if not player then return {} end
  player.team = args.team
  app.send.chat.chatRemote.place(args.uid,
    { uid = args.uid, channel = "team", value = args.team and tostring(args.team) or nil })
  if player.session then
    app.push(player.session, "onTeam", { event = args.event, team = args.team, info = args.info })
  end
  return {}
end

return Remote
