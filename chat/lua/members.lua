-- Who is in which room, and what players hear of each other.
--
-- state.players[uid] = { member {uid, name, connector, sid}, rid, scene, team }   on the uid's owner
-- state.rooms[room] = { members {uid → member}, names, count, history, told }     on the room's owner
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

function Members.room(key)
  local room = state.rooms[key]
  if not room then
    room = { key = key, members = {}, count = 0, history = cache.get(kept(key)) or {} }
    cache.delete(kept(key))
    state.rooms[key] = room
  end
  return room
end

-- An empty room is forgotten; what was said there stays for a while in the cache, which is bounded, as rooms are not.
local function close(room)
  state.rooms[room.key] = nil
  if #room.history > 0 then cache.put(kept(room.key), room.history, KEPT_S) end
end

-- Where room pushes go: a list of sessions, made anew when somebody comes or goes.
function Members.sessions(room)
  if not room.list then
    room.list = {}
    for _, member in pairs(room.members) do room.list[#room.list + 1] = member end
    table.sort(room.list, function(a, b) return a.uid < b.uid end)
  end
  return room.list
end

local function others(room, uid)
  local list = {}
  for _, member in ipairs(Members.sessions(room)) do
    if member.uid ~= uid then list[#list + 1] = member end
  end
  return list
end

-- A crowd is told its size, once a second when it changed.
local function count_later(room)
  if room.counting then return end
  room.counting = true
  clock.after(COUNT_MS, function()
    room.counting = false
    if room.told ~= room.count and room.count > LIST_MAX then
      room.told = room.count
      app.push(Members.sessions(room), "onUsers", { count = room.count }, { supersedes = "count" })
    end
  end)
end

local function announce(room, route, member)
  if room.count > LIST_MAX then
    count_later(room)
    return
  end
  local list = others(room, member.uid)
  if #list > 0 then app.push(list, route, { user = member.name }) end
end

-- The names in a room, at most 200, the newcomer among them.
local function names_of(room, member)
  local users = { member.name }
  for _, other in ipairs(Members.sessions(room)) do
    if #users >= LIST_MAX then break end
    if other.uid ~= member.uid then users[#users + 1] = other.name end
  end
  table.sort(users)
  return { users = users, count = room.count > LIST_MAX and room.count or nil }
end

-- quiet: scenes and teams have members of their own kind of news.
function Members.join(key, member, quiet)
  local room = Members.room(key)
  local before = room.members[member.uid]
  room.members[member.uid] = member
  room.list = nil
  if not before then room.count = room.count + 1 end
  if quiet then return {} end
  announce(room, "onAdd", member)
  return names_of(room, member)
end

-- Only the connection that is in the room leaves it, not its successor.
function Members.leave(key, member, quiet)
  local room = state.rooms[key]
  local there = room and room.members[member.uid]
  if not there or there.sid ~= member.sid or there.connector ~= member.connector then return end
  room.members[member.uid] = nil
  room.list = nil
  room.count = room.count - 1
  if not quiet then announce(room, "onLeave", there) end
  if room.count == 0 then close(room) end
end

function Members.post(key, message)
  local room = Members.room(key)
  local history = room.history
  history[#history + 1] = message
  if #history > HISTORY_MAX then table.remove(history, 1) end
  app.push(Members.sessions(room), "onChat", message)
end

function Members.history(key, limit)
  local room, list = state.rooms[key], {}
  local history = room and room.history or cache.get(kept(key)) or {}
  limit = math.max(1, math.min(limit or 50, HISTORY_MAX))
  for i = math.max(1, #history - limit + 1), #history do list[#list + 1] = history[i] end
  return list
end

return Members
