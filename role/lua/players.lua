-- The players this worker owns: loading them, and changing them so that memory and SQL log go together.
--
-- state.players[uid] = {
--   uid, role (nil: none yet), bag {item → count}, quests {quest → {state, progress}},
--   session {uid, sid, connector} of the live connection or nil, resume, rid, scene,
--   grace: the timer that forgets who has no session,
--   queue and busy: one login or creation at a time }
-- state.left[uid] = who is online with what is not in memory: { uid, session, resume, rid, scene, grace }
--
-- A player may be forgotten whenever its task waits (its record was lost): who has waited looks anew, Players.is_known.
local Players = {}

state.players = state.players or {}
state.left = state.left or {}
state.loading = state.loading or {}
state.moves = state.moves or 0    -- how often players may have become another instance's
state.numbers = state.numbers or { kind = 0, start = app.epoch, second = clock.wall_ms() // 1000, count = 0 }

local GOLD_AT_START = 1000

local KEY_MAX = 64   -- of the text; the log takes keys of up to 80 bytes

local function fnv(text)
  local hash = 0xcbf29ce484222325
  for i = 1, #text do hash = (hash ~ text:byte(i)) * 0x100000001b3 end
  return hash
end

-- A key that stands in the log as it is (no comma, space, % or control character) and is short, whatever players call
-- themselves. Two may share one that was cut: then they wait for each other's changes to land, no more.
function Players.key(kind, text)
  local plain = text:gsub("[^%w%._:#\x80-\xff-]", function(c) return string.format("=%02X", c:byte()) end)
  if #plain > KEY_MAX then plain = string.format("%s~%016x", plain:sub(1, KEY_MAX - 17), fnv(text)) end
  return kind .. ":" .. plain
end

local function keys_of(player)
  db.key("role:" .. player.role.id)
  db.key(Players.key("uid", player.uid))
end

-- Where a player is, whether what it carries is in memory or not; nil: not here.
function Players.presence(uid)
  return state.players[uid] or state.left[uid]
end

function Players.is_known(player)
  return state.players[player.uid] == player
end

-- It is in no scene and no team any more.
local function leave(player)
  local uid = player.uid
  if player.scene then
    app.send.scene.sceneRemote.leave(tostring(player.scene), { uid = uid, scene = player.scene })
  end
  if player.was_online then app.send.team.teamRemote.online(uid, { uid = uid, gone = true }) end
end

-- Of who has gone, which resume token was the last: those before it stay void as long as they live. Another owner of
-- the uid would have given out newer ones, so what was known before players moved says nothing.
local RESUME_S = 86400

local function resume_key(uid) return "resume:" .. uid end

function Players.last_resume(uid)
  local last = cache.get(resume_key(uid))
  return last and last.moves == state.moves and last.resume or nil
end

local function drop(player)
  local uid = player.uid
  if state.players[uid] == player then state.players[uid] = nil end
  if state.left[uid] == player then state.left[uid] = nil end
end

local function grace_over(player)
  player.grace = nil
  if Players.presence(player.uid) ~= player then return end
  if player.busy then
    Players.linger(player)
    return
  end
  leave(player)
  if player.resume then
    cache.put(resume_key(player.uid), { resume = player.resume, moves = state.moves }, RESUME_S)
  end
  drop(player)
end

-- Who has no connection is forgotten after a while: role, team and scene stay until then.
function Players.linger(player)
  if player.grace then player.grace:cancel() end
  player.grace = clock.after(app.config("session.grace_s", 30) * 1000, function() grace_over(player) end)
end

-- A scene holds it and this instance, which has been started anew, knows nothing of it: if its connection has gone too,
-- nobody else would ever send it away.
function Players.found(uid)
  local player = { uid = uid, was_online = true }
  state.left[uid] = player
  Players.linger(player)
  return player
end

function Players.bind(player, session)
  if player.grace then player.grace:cancel() end
  player.grace, player.session, player.was_online = nil, session, true
end

-- Players who are another instance's now, or were meanwhile. Connectors tell their owner who is online; who has no
-- connection is known to nobody any more, so its grace ends here. What they have told of players who are coming stays.
function Players.moved()
  state.moves = state.moves + 1
  local moved = {}
  for uid, player in pairs(state.players) do
    if not app.owns(uid) then moved[#moved + 1] = player end
  end
  for uid, player in pairs(state.left) do
    local owns, coming = app.owns(uid)
    if not owns and not coming then moved[#moved + 1] = player end
  end
  table.sort(moved, function(a, b) return a.uid < b.uid end)
  for _, player in ipairs(moved) do
    if player.grace then
      player.grace:cancel()
      leave(player)
    end
    player.grace, player.session = nil, nil
    drop(player)
  end
end

-- Who is loaded takes up the connection that is known of it.
local function take_up(player)
  local left = state.left[player.uid]
  state.left[player.uid] = nil
  if left then
    if left.grace then left.grace:cancel() end
    left.grace = nil
    player.resume, player.rid, player.scene, player.was_online = left.resume, left.rid, left.scene, left.was_online
  end
  if left and left.session then
    Players.bind(player, left.session)
  else
    Players.linger(player)
  end
end

local function load_details(player)
  local id = player.role.id
  local bag, err = db.query("SELECT item, count FROM bag WHERE role_id = ?", id)
  if not bag then return nil, err end
  local quests
  quests, err = db.query("SELECT quest, state, progress FROM quest WHERE role_id = ?", id)
  if not quests then return nil, err end
  for _, row in ipairs(bag) do player.bag[row.item] = row.count end
  for _, row in ipairs(quests) do player.quests[row.quest] = { state = row.state, progress = row.progress } end
  return true
end

-- What the player has bought and been given is known from here on, so that the database may be away while it plays.
local function load(uid)
  local known, why = db.load_once(uid)
  if not known then return nil, why end
  local player = { uid = uid, bag = {}, quests = {}, queue = {} }
  local rows, err = db.load(Players.key("uid", uid),
    "SELECT id, uid, name, level, exp, gold, gems, scene, x, y FROM role WHERE uid = ?", uid)
  if not rows then return nil, err end
  player.role = rows[1]
  if player.role then
    local ok
    ok, err = load_details(player)
    if not ok then return nil, err end
  end
  return player
end

-- Whoever waits for it goes on, however the loading ended: also when its task was stopped.
local Loading = {}

function Loading.__close(loading)
  state.loading[loading.uid] = nil
  app.wake(loading.waiting)
end

-- The player, loaded from the database if need be. Yields then. nil, error: the database is away.
function Players.get(uid)
  while true do
    local player = state.players[uid]
    if player then return player end
    local waiting = state.loading[uid]
    if not waiting then break end
    app.wait(waiting)
  end
  local waiting, moves = {}, state.moves
  local player, err
  do
    local _ <close> = setmetatable({ uid = uid, waiting = waiting }, Loading)
    state.loading[uid] = waiting
    player, err = load(uid)
  end
  if not player then return nil, err, "the role could not be loaded" end
  if moves ~= state.moves then return Players.get(uid) end   -- another may have changed it since it was read
  state.players[uid] = player
  take_up(player)
  return player
end

-- As get, but only who has a role. Yields.
function Players.with_role(uid)
  local player, err, why = Players.get(uid)
  if not player then return nil, err, why end
  if not player.role then return nil, "not_found", "this player has no role" end
  return player
end

local Lock = {}

function Lock.__close(lock)
  lock.player.busy = false
  app.wake(lock.player.queue)
end

-- Runs fn(player, …), which may yield: one login or creation of a player at a time, however the last one ended. Yields
-- while another runs.
function Players.locked(player, fn, ...)
  while player.busy do app.wait(player.queue) end
  if not Players.is_known(player) then return nil, "unavailable", "the player is being loaded: try again" end
  local _ <close> = setmetatable({ player = player }, Lock)
  player.busy = true
  return fn(player, ...)
end

-- Forgets what a player carries, for memory may be ahead of the log; the next request loads what has landed. The
-- connection is remembered: it is told of here alone.
local function forget(player)
  state.players[player.uid] = nil
  state.left[player.uid] = player
end

-- Every record of a player carries its uid's key, which is nearly always the uid as it is.
function Players.forget_key(key)
  local uid = key:match("^uid:(.*)$")
  if not uid then return end
  if state.players[uid] and Players.key("uid", uid) == key then
    forget(state.players[uid])
    return
  end
  local lost = {}
  for other, player in pairs(state.players) do
    if Players.key("uid", other) == key then lost[#lost + 1] = player end
  end
  for _, player in ipairs(lost) do forget(player) end
end

-- ---- what there may be of something: every client can read it, and no sum of it goes over ---------------------------

local NUMBER_MAX, ITEMS_MAX = 1 << 53, 0x7fffffff

function Players.room_for(player, field) return NUMBER_MAX - player.role[field] end

function Players.room_for_item(player, item) return ITEMS_MAX - (player.bag[item] or 0) end

-- ---- changes: to be called without yielding before the request ends -------------------------------------------------

-- Adds to a number of the role: a relative update, so that the log's order does not matter to the sum.
function Players.add(player, field, amount)
  if amount == 0 then return end
  keys_of(player)
  db.exec("UPDATE role SET " .. field .. " = " .. field .. " + ? WHERE id = ?", amount, player.role.id)
  db.set(player.role, field, player.role[field] + amount)
end

function Players.write(player, field, value)
  keys_of(player)
  db.exec("UPDATE role SET " .. field .. " = ? WHERE id = ?", value, player.role.id)
  db.set(player.role, field, value)
end

function Players.add_item(player, item, count)
  local has = player.bag[item] or 0
  keys_of(player)
  if has + count > 0 then
    db.exec("INSERT INTO bag (role_id, item, count) VALUES (?, ?, ?) ON DUPLICATE KEY UPDATE count = count + ?",
      player.role.id, item, count, count)
    db.set(player.bag, item, has + count)
  else
    db.exec("DELETE FROM bag WHERE role_id = ? AND item = ?", player.role.id, item)
    db.set(player.bag, item, nil)
  end
end

function Players.write_quest(player, quest, quest_state, progress)
  keys_of(player)
  db.exec("REPLACE INTO quest (role_id, quest, state, progress) VALUES (?, ?, ?, ?)",
    player.role.id, quest, quest_state, progress)
  db.set(player.quests, quest, { state = quest_state, progress = progress })
end

-- exp for the next level grows by the square.
local function level_of(exp)
  return 1 + math.floor(math.sqrt(exp / 100))
end

function Players.gain(player, exp, gold)
  Players.add(player, "exp", exp)
  Players.add(player, "gold", gold)
  local level = level_of(player.role.exp + exp)
  if level ~= player.role.level then Players.write(player, "level", level) end
  return { exp = player.role.exp + exp, gold = player.role.gold + gold, level = level }
end

-- ---- a new role ------------------------------------------------------------------

-- A number below 2^53, so that every client can read it, which no other worker, instance or start of it gives out:
-- 1 bit kind, 29 start (since 2025), 4 worker, 7 instance, 12 count. A start's number is its epoch; when its count is
-- used up, a second stands for it (kind 1), one that began after this start did: no start of before can have had it.
local YEAR_2025_S, COUNT_MAX = 1735689600, 0xfff

local function wall_s() return clock.wall_ms() // 1000 end

-- Yields when all numbers of this second are given out.
local function new_id()
  local lane = tonumber(app.instance:match("%-(%d+)$"))
  assert(lane and lane < 128 and app.worker < 16, "a role's number has room for 127 instances of 16 workers")
  local ids = state.numbers
  while ids.count == COUNT_MAX do
    if wall_s() > ids.second then
      ids.kind, ids.start, ids.second, ids.count = 1, wall_s(), wall_s(), 0
    else
      clock.sleep(50)
    end
  end
  ids.count = ids.count + 1
  local start = ids.kind << 29 | ids.start - YEAR_2025_S & 0x1fffffff
  return ((start << 4 | app.worker) << 7 | lane) << 12 | ids.count
end

local function claim(name, uid)
  local answer, err, why
  for _ = 1, 2 do  -- the same player may ask again: the link may have broken under the first
    answer, err, why = app.rpc.role.nameRemote.claim(name, { name = name, uid = uid })
    if answer or err ~= "unavailable" then break end
  end
  if not answer then return nil, err, why end
  return not answer.taken
end

-- A free name: the wanted one, or for guests NAME#2, NAME#3 …
local function free_name(uid, wanted, exact)
  for n = 1, 50 do
    local name = n == 1 and wanted or wanted .. "#" .. n
    local mine, err, why = claim(name, uid)
    if mine then return name end
    if mine == nil then return nil, err, why end
    if exact then return nil, "denied", "the name is taken" end
  end
  return nil, "denied", "too many players have this name"
end

-- Gives the player a role. Yields; the caller holds the lock. exact: no other name will do.
function Players.create(player, wanted, exact)
  local name, err, why = free_name(player.uid, wanted, exact)
  if not name then return nil, err, why end
  local id = new_id()
  if not Players.is_known(player) then return nil, "unavailable", "the player is being loaded: try again" end
  local role = {
    id = id, uid = player.uid, name = name, level = 1, exp = 0, gold = GOLD_AT_START, gems = 0,
    scene = 1, x = 0.0, y = 0.0,
  }
  db.key("role:" .. role.id)
  db.key(Players.key("uid", player.uid))
  db.exec("INSERT INTO role (id, uid, name, level, exp, gold, gems, scene, x, y) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
    role.id, role.uid, role.name, role.level, role.exp, role.gold, role.gems, role.scene, role.x, role.y)
  db.set(player, "role", role)
  return db.commit()
end

-- Changes the name of a role that is there. Yields; the caller holds the lock.
function Players.rename(player, wanted)
  local name, err, why = free_name(player.uid, wanted, true)
  if not name then return nil, err, why end
  if not Players.is_known(player) then return nil, "unavailable", "the player is being loaded: try again" end
  local old = player.role.name
  if old == name then return true end
  Players.write(player, "name", name)
  local ok
  ok, err = db.commit()
  if not ok then return nil, err end
  -- under the lock: a release that came after the same name had been claimed anew would give it away
  app.rpc.role.nameRemote.release(old, { name = old, uid = player.uid })
  return true
end

return Players
