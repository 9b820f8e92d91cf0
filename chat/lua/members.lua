-- Who hears of whom, and what was said lately.
--
-- state.players[uid] = { member {uid, name, connector, sid}, rid, scene, team }   on the uid's owner
-- app.room(key): the members of a room                                             on the room's owner
-- state.rooms[key] = { history, told, counting }                                   beside it
-- state.names[name] = member                                                       on the name's owner
local Members = {}

state.players = state.players or {}
state.rooms = state.rooms or {}
state.names = state.names or {}

local LIST_MAX = 200       -- a larger room is told numbers instead of names
local HISTORY_MAX = 100
local COUNT_MS = 1000
local KEPT_S = 3600        -- what was said in a room that is empty now

local function kept(key) return "history:" .. key end

-- Scenes, teams and the world have members of their own kind of news.
local function is_quiet(key) return key:sub(1, 5) ~= "room:" end

local function beside(key)
  local room = state.rooms[key]
  if not room then
    room = { history = cache.get(kept(key)) or {} }
    cache.delete(kept(key))
    state.rooms[key] = room
  end
  return room
end

-- An empty room is forgotten; what was said there stays for a while in the cache, which is bounded, as rooms are not.
local function close(key)
  local room = state.rooms[key]
  state.rooms[key] = nil
  if room and #room.history > 0 then cache.put(kept(key), room.history, KEPT_S) end
end

-- A crowd is told its size, once a second when it changed.
local function count_later(key)
  local room = beside(key)
  if room.counting then return end
  room.counting = true
  clock.after(COUNT_MS, function()
    local there = app.room(key)
    room.counting = false
    if room.told ~= there.count and there.count > LIST_MAX then
      room.told = there.count
      there:push("onUsers", { count = room.told }, { supersedes = "count" })
    end
  end)
end

local function announce(key, route, member)
  local room = app.room(key)
  if is_quiet(key) then return end
  if room.count > LIST_MAX then count_later(key) else room:push(route, { user = member.name }, { but = member }) end
end

-- The names in a room, at most 200, the newcomer among them.
local function names_of(room, member)
  local users = { member.name }
  for _, other in ipairs(room:members(LIST_MAX)) do
    if #users < LIST_MAX and other.uid ~= member.uid then users[#users + 1] = other.name end
  end
  table.sort(users)
  return { users = users, count = room.count > LIST_MAX and room.count or nil }
end

function Members.join(key, member)
  local room = app.room(key)
  local joined, err, why = room:join(member)
  if joined == nil then return nil, err, why end
  if is_quiet(key) then return {} end
  beside(key)
  announce(key, "onAdd", member)
  return names_of(room, member)
end

-- A member has left.
function Members.left(key, member)
  announce(key, "onLeave", member)
  if app.room(key).count == 0 then close(key) end
end

-- Only the connection that is in the room leaves it, not its successor.
function Members.leave(key, member)
  local room = app.room(key)
  local there = room:member(member.uid)
  if room:leave(member) then Members.left(key, there) end
end

function Members.post(key, message)
  local history = beside(key).history
  history[#history + 1] = message
  if #history > HISTORY_MAX then table.remove(history, 1) end
  app.room(key):push("onChat", message)
end

function Members.history(key, limit)
  local room, list = state.rooms[key], {}
  local history = room and room.history or cache.get(kept(key)) or {}
  limit = math.max(1, math.min(limit or 50, HISTORY_MAX))
  for i = math.max(1, #history - limit + 1), #history do list[#list + 1] = history[i] end
  return list
end

return Members
