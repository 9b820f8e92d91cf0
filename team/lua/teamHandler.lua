-- What players do with teams. The player's owner knows the team's number; the team is changed at its own owner.
local Handler = {}

local TRIES = 3
local UID_MAX = 64

state.players = state.players or {}   -- uid → { team, name, session, invited {team → true} }

local function player_of(session)
  local player = state.players[session.uid]
  if not player then
    player = {}
    state.players[session.uid] = player
  end
  player.session = { uid = session.uid, sid = session.sid, connector = session.connector }
  return player
end

-- A number that is probably nobody's; its owner knows.
local function new_team() return math.random(1 << 52) end

-- Yields (asks role, once).
local function name_of(session, player)
  if player.name then return player.name end
  local role, err, why = app.rpc.role.roleRemote.get(session.uid, { uid = session.uid })
  if not role then return nil, err, why end
  player.name = role.name
  return role.name
end

local function change(team, verb, session, extra)
  extra = extra or {}
  return app.rpc.team.groupRemote.change("team:" .. team, {
    team = team, verb = verb, uid = session.uid, name = extra.name, target = extra.target,
  })
end

local function in_team(session)
  local player = player_of(session)
  if not player.team then return nil, "denied", "you are in no team" end
  return player
end

-- Yields.
function Handler.create(session)
  local player = player_of(session)
  if player.team then return nil, "denied", "you are in a team already" end
  local name, err, why = name_of(session, player)
  if not name then return nil, err, why end
  local answer
  for _ = 1, TRIES do
    answer, err, why = change(new_team(), "create", session, { name = name })
    if answer or err ~= "busy" then break end
  end
  return answer, err, why
end

-- The guest gets the push onTeam {event = "invite"}. Yields.
function Handler.invite(session, msg)
  if #msg.uid > UID_MAX then return nil, "not_found", "uid: nobody is called so" end
  local player, err, why = in_team(session)
  if not player then return nil, err, why end
  local answer
  answer, err, why = change(player.team, "invite", session, { target = msg.uid })
  if not answer then return nil, err, why end
  answer, err, why = app.rpc.team.teamRemote.invited(msg.uid,
    { uid = msg.uid, team = player.team, from = session.uid, name = player.name })
  if not answer then return nil, err, why end
  if not answer.online then return nil, "not_found", "uid: this player is not online" end
  if answer.busy then return nil, "denied", "uid: this player is in a team already" end
  return {}
end

-- Yields.
function Handler.accept(session, msg)
  local player = player_of(session)
  if player.team then return nil, "denied", "you are in a team already" end
  local name, err, why = name_of(session, player)
  if not name then return nil, err, why end
  return change(msg.team, "accept", session, { name = name })
end

-- Yields.
function Handler.decline(session, msg)
  local answer, err, why = change(msg.team, "decline", session)
  if not answer then return nil, err, why end
  return {}
end

-- Yields.
function Handler.leave(session)
  local player, err, why = in_team(session)
  if not player then return nil, err, why end
  local answer
  answer, err, why = change(player.team, "leave", session)
  if not answer then return nil, err, why end
  return {}
end

-- Yields.
function Handler.kick(session, msg)
  local player, err, why = in_team(session)
  if not player then return nil, err, why end
  return change(player.team, "kick", session, { target = msg.uid })
end

-- Yields.
function Handler.promote(session, msg)
  local player, err, why = in_team(session)
  if not player then return nil, err, why end
  return change(player.team, "promote", session, { target = msg.uid })
end

-- The team one is in; without one the answer has none. Yields.
function Handler.info(session)
  local player = player_of(session)
  if not player.team then return {} end
  return change(player.team, "info", session)
end

return Handler
