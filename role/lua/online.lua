-- Who is online: one live connection per player in the whole cluster, decided here, by the player's owner.
local Players = require "players"

local Online = {}

state.announced = state.announced or {}     -- "connector-1/0" → true: it told us which players it holds
state.announcing = state.announcing or {}   -- tasks that wait for that
state.looking = state.looking or {}         -- connectors that are asked about their sessions
state.since_ms = state.since_ms or clock.now_ms()

local ANNOUNCE_MS = 3000    -- a connector that has not spoken by then holds nobody
local ALIVE_MS = 2000
local AWAY_MS = 5000        -- a link that is back by then was a short one

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

-- The connection is lost; role, team and scene stay for a while.
local function lost(player)
  player.missed = player.session   -- its connector keeps what is pushed to it, for who resumes
  player.session = nil
  Players.linger(player)
end

local function is_same(a, b)
  return a and b and a.sid == b.sid and a.connector == b.connector
end

-- A session that we hold another one for was left behind while its connector could not be reached.
local function announced(connector, online)
  local session = { uid = online.uid, sid = online.sid, connector = connector }
  local player = Players.presence(online.uid)
  if player and player.session then
    if not is_same(player.session, session) then app.kick(session, "another login of this player") end
    return
  end
  if not player then
    player = { uid = online.uid }
    state.left[online.uid] = player
  end
  Players.bind(player, session)
  player.resume, player.rid, player.scene = online.resume, online.rid, tonumber(online.scene or "")
end

-- The sessions of one worker of a connector, in one call or several. Asks no database: players are loaded when needed.
function Online.announce(args)
  for _, online in ipairs(args.online or {}) do announced(args.connector, online) end
  if args.last then
    state.announced[args.connector .. "/" .. args.worker] = true
    app.wake(state.announcing)
  end
  return {}
end

-- ---- logins ------------------------------------------------------------------

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
  local older = resumed and player.missed or nil
  player.missed = nil
  player.resume = app.nonce()
  return {
    role = player.role, resume = player.resume, resumed = resumed,
    scene = player.scene and tostring(player.scene) or nil, rid = rid,
    older_connector = older and older.connector, older_sid = older and older.sid,
  }
end

local function login_locked(player, args)
  local again = args.resume == player.taken and is_same(player.session, args)   -- our answer did not reach it
  local resumed = args.resume ~= nil and args.resume == player.resume
  if again then resumed = player.resumed or false end
  local rid = player.rid
  local last = player.resume or Players.last_resume(player.uid)
  if args.resume and last and last ~= args.resume and not again then   -- it must not throw out who came after it
    return nil, "denied", "this resume token was used or is void"
  end
  if not make_room(player, args) then return { refused = true, message = "this name is online already" } end
  if not player.role and args.create then
    local ok, err, why = Players.create(player, player.uid, false)
    if not ok then return nil, err, why end
  end
  Players.bind(player, { uid = player.uid, sid = args.sid, connector = args.connector })
  player.rid, player.taken, player.resumed = args.rid or rid, args.resume, resumed
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
  local answer
  answer, err, why = Players.locked(player, login_locked, args)
  if answer and not Players.is_known(player) then   -- forgotten while we waited
    if answer.resumed then player.resume = args.resume end
    return Online.login(args)
  end
  -- The player was forgotten, or its key moved, after the name may have been claimed: its connector asks again, by then
  -- the next owner, instead of refusing somebody who has used the token.
  if err == "unavailable" then return nil, err, why, "unknown" end
  return answer, err, why
end

function Online.logout(args)
  local player = Players.presence(args.uid)
  if player and is_same(player.session, args) then
    if args.kicked then player.resume = app.nonce() end   -- nobody has it
    lost(player)
  end
  return {}
end

-- ---- connectors that go away ------------------------------------------------------------------

local function held_by(connector)
  local held = {}
  for _, players in ipairs { state.players, state.left } do
    for _, player in pairs(players) do
      if player.session and player.session.connector == connector then held[#held + 1] = player.session end
    end
  end
  table.sort(held, function(a, b) return a.uid < b.uid end)
  return held
end

-- A connector's link went down: whose connection has not come through it is lost. Yields.
function Online.connector_away(connector)
  if state.looking[connector] then return end
  state.looking[connector] = true
  clock.sleep(AWAY_MS)
  state.looking[connector] = nil
  local reachable = true
  for _, session in ipairs(held_by(connector)) do
    local alive = reachable and lives(session)
    if alive == nil then reachable = false end
    local player = Players.presence(session.uid)
    if not alive and player and is_same(player.session, session) then lost(player) end
  end
end

return Online
