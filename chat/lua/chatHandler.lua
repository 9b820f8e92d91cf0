-- Talking: to everybody in a room, or to one player.
local Handler = {}

local CONTENT_MAX = 2000
local CHANNELS = { world = true, scene = true, team = true, room = true, private = true }
-- Who is logged in is in a room: only a chat that has just been started does not know of it yet.
local NOT_YET = "the chat has just been started: try again"
local EXPECTED = "channel: expected world, scene, team, room or private"

-- One message is a push to everybody in the room: who may send many makes the work of thousands.
local SAVED_S = 5
local function too_fast(player)
  local per_s, now = app.config("chat.per_s", 0), clock.now_ms()
  if per_s == 0 then return false end
  local saved = (player.words or per_s * SAVED_S) + (now - (player.spoke_ms or now)) / 1000 * per_s
  player.words, player.spoke_ms = math.min(saved, per_s * SAVED_S), now
  if player.words < 1 then return true end
  player.words = player.words - 1
  return false
end

-- The key of the room a channel means for this player, or nil, error, message.
local function room_of(player, channel, rid)
  if channel == "world" then return "world:" end
  if channel == "scene" or channel == "team" then
    if not player[channel] then return nil, "denied", "you are in no " .. channel end
    return channel .. ":" .. player[channel]
  end
  if channel ~= "room" then
    return nil, "bad_request", CHANNELS[channel] and "channel: private messages have no history" or EXPECTED
  end
  if rid and rid ~= player.rid then return nil, "denied", "rid: you are not in this room" end
  return "room:" .. player.rid
end

local function message_of(player, msg, channel)
  return {
    msg = msg.content, from = player.member.name, target = msg.target, channel = channel, time = clock.wall_ms(),
  }
end

-- Yields (asks the owner of the name).
local function to_one(player, msg)
  local message = message_of(player, msg, "private")
  local answer, err, why = app.rpc.chat.nameRemote.deliver(msg.target, { name = msg.target, message = message })
  if not answer then return nil, err, why end
  if not answer.online then return nil, "not_found", "target: this player is not online" end
  return {}
end

-- Yields (asks the owner of the room or of the name). Those who hear it get the push onChat.
function Handler.send(session, msg)
  local player = state.players[session.uid]
  if not player then return nil, "unavailable", NOT_YET end
  if too_fast(player) then return nil, "busy", "you speak too fast" end
  if #msg.content > CONTENT_MAX then return nil, "bad_request", "content: at most " .. CONTENT_MAX .. " bytes" end
  local channel = msg.channel or "room"
  if channel == "private" and msg.target == "*" then
    return nil, "bad_request", "target: a private message needs a player's name"
  end
  if not CHANNELS[channel] then return nil, "bad_request", EXPECTED end
  if msg.target ~= "*" then return to_one(player, msg) end
  local room, err, why = room_of(player, channel, msg.rid)
  if not room then return nil, err, why end
  local answer
  answer, err, why = app.rpc.chat.roomRemote.post(room, { room = room, message = message_of(player, msg, channel) })
  if not answer then return nil, err, why end
  return {}
end

-- What was said lately. Yields.
function Handler.history(session, msg)
  local player = state.players[session.uid]
  if not player then return nil, "unavailable", NOT_YET end
  local room, err, why = room_of(player, msg.channel or "room", msg.rid)
  if not room then return nil, err, why end
  local answer
  answer, err, why = app.rpc.chat.roomRemote.history(room, { room = room, limit = msg.limit })
  if not answer then return nil, err, why end
  return { messages = answer.messages or {} }   -- an empty list is not on the wire between services
end

return Handler
