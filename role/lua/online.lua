-- Who is online: one live connection per player in the whole cluster, decided here, by the player's owner.
local Players = require "players"

local Online = {}

state.announced = state.announced or {}     -- "connector-1/0" → true: it told us which players it holds
state.announcing = state.announcing or {}   -- tasks that wait for that
state.since_ms = state.since_ms or clock.now_ms()

local ANNOUNCE_MS = 3000    -- a connector that has not spoken by then holds nobody
local ALIVE_MS = 2000

-- ---- after a start of this instance, connectors say whom they hold --------------------------------------------------

local function all_announced()
  for _, row in ipairs(app.instances("connector")) do
    for worker = 0, row.workers - 1 do
      if not state.announced[row.id .. "/" .. worker] then return false end
    end
  end
  return true
end

-- Yields until every connector has spoken, or has had time enough.
local function wait_for_announcements()
  if state.everyone_spoke then return end
  while not all_announced() do
    local left = state.since_ms + ANNOUNCE_MS - clock.now_ms()
    if left <= 0 then break end
    clock.after(left, function() app.wake(state.announcing) end)
    app.wait(state.announcing)
  end
  state.everyone_spoke = true
end

local function grace_over(player)
  player.grace = nil
  local uid = player.uid
  if player.scene then
    app.send.scene.sceneRemote.leave(tostring(player.scene), { uid = uid, scene = player.scene })
  end
  app.send.team.teamRemote.online(uid, { uid = uid, gone = true })
  if state.players[uid] == player then state.players[uid] = nil end
end

-- The connection is lost; role, team and scene stay for a while.
local function lost(player)
  player.session = nil
  if player.grace then player.grace:cancel() end
  player.grace = clock.after(app.config("session.grace_s", 30) * 1000, function() grace_over(player) end)
end

local function bind(player, session)
  if player.grace then
    player.grace:cancel()
    player.grace = nil
  end
  player.session = session
end

-- One call for all sessions of one worker of a connector. Yields (loads who is not in memory).
function Online.announce(args)
  for _, online in ipairs(args.online or {}) do
    local player = Players.get(online.uid)
    if player and not player.session then
      bind(player, { uid = online.uid, sid = online.sid, connector = args.connector })
      player.resume, player.rid = online.resume, online.rid
      player.scene = tonumber(online.scene or "")
    end
  end
  if args.last then
    state.announced[args.connector .. "/" .. args.worker] = true
    app.wake(state.announcing)
  end
  return {}
end

-- ---- logins ------------------------------------------------------------------

local function is_same(a, b)
  return a and b and a.sid == b.sid and a.connector == b.connector
end

-- Whether an older connection still lives; asked of its connector. Yields.
local function lives(session)
  local answer = app.rpc.connector.connectorRemote.alive("", { sid = session.sid },
    { instance = session.connector, worker = session.sid >> 48, timeout_ms = ALIVE_MS })
  return answer and answer.alive
end

-- Clears the way for a new connection: refuses it, or kicks the older one. Yields.
local function make_room(player, args)
  local older = player.session
  if not older or is_same(older, args) then return true end
  local alive = lives(older)
  if not is_same(player.session, older) then return make_room(player, args) end   -- it changed while we asked
  if alive and args.guest then return false end
  if alive then app.kick(older, "another login of this player") end
  lost(player)
  return true
end

local function answer_of(player, resumed, rid)
  player.resume = app.nonce()
  return {
    role = player.role, resume = player.resume, resumed = resumed,
    scene = player.scene and tostring(player.scene) or nil, rid = rid,
  }
end

local function login_locked(player, args)
  local resumed = args.resume ~= nil and args.resume == player.resume
  local rid = player.rid
  if args.resume and not resumed and player.resume then   -- it must not throw out who came after it
    return nil, "denied", "this resume token was used or is void"
  end
  if not make_room(player, args) then return { refused = true, message = "this name is online already" } end
  if not player.role and args.create then
    local ok, err, why = Players.create(player, player.uid, false)
    if not ok then return nil, err, why end
  end
  bind(player, { uid = player.uid, sid = args.sid, connector = args.connector })
  player.rid = args.rid or rid
  local there = player.scene
  if there then   -- within grace: the scene's pushes go to the new connection
    local answer = app.rpc.scene.sceneRemote.rebind(tostring(there),
      { uid = player.uid, connector = args.connector, sid = args.sid }, { timeout_ms = ALIVE_MS })
    if not answer or not answer.there then player.scene = nil end
  end
  if player.role then
    app.send.team.teamRemote.online(player.uid,
      { uid = player.uid, name = player.role.name, connector = args.connector, sid = args.sid })
  end
  return answer_of(player, resumed, rid)
end

-- A connection asks to be the player's live one. Yields.
function Online.login(args)
  wait_for_announcements()
  local player, err, why = Players.get(args.uid)
  if not player then return nil, err, why end
  Players.lock(player)
  if state.players[args.uid] ~= player then   -- forgotten while we waited
    Players.unlock(player)
    return Online.login(args)
  end
  local done, answer
  done, answer, err, why = pcall(login_locked, player, args)
  Players.unlock(player)
  if not done then error(answer, 0) end
  return answer, err, why
end

function Online.logout(args)
  local player = state.players[args.uid]
  if player and is_same(player.session, args) then lost(player) end
  return {}
end

return Online
