-- A player's own role.
local Players = require "players"

local Handler = {}

-- Yields when the player is not in memory.
function Handler.get(session)
  local player, err, why = Players.with_role(session.uid)
  if not player then return nil, err, why end
  return { role = player.role }
end

local function check_name(name)
  if #name < 1 or #name > 64 then return "a name has 1 to 64 bytes" end
  if name:find("[%c*]") or name:find("\xc2[\x80-\x9f]") then return "a name holds no control characters and no *" end
end

local CHAT_MS = 1000   -- without a chat a name is good as well

-- Others know the player by its name: team and chat now, and the chat after a restart of it from the connector.
-- Yields: who has the answer is reached by the new name.
local function tell(session, name)
  app.send.team.teamRemote.online(session.uid,
    { uid = session.uid, name = name, connector = session.connector, sid = session.sid })
  session:set("name", name)
  app.rpc.chat.chatRemote.rename(session.uid, { uid = session.uid, name = name }, { timeout_ms = CHAT_MS })
end

-- For accounts: guests get theirs at the first entry. Yields.
function Handler.create(session, msg)
  local bad = check_name(msg.name)
  if bad then return nil, "bad_request", "name: " .. bad end
  local player, err, why = Players.get(session.uid)
  if not player then return nil, err, why end
  local ok
  ok, err, why = Players.locked(player, function()
    if player.role then return nil, "denied", "you have a role already" end
    return Players.create(player, msg.name, true)
  end)
  if not ok then return nil, err, why end
  tell(session, player.role.name)
  return { role = player.role }
end

-- Yields.
function Handler.rename(session, msg)
  local bad = check_name(msg.name)
  if bad then return nil, "bad_request", "name: " .. bad end
  local player, err, why = Players.with_role(session.uid)
  if not player then return nil, err, why end
  local ok
  ok, err, why = Players.locked(player, Players.rename, msg.name)
  if not ok then return nil, err, why end
  tell(session, player.role.name)
  return { role = player.role }
end

return Handler
