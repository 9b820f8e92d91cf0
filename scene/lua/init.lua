-- scene: the hooks of the service.
local World = require "world"

local Init = {}

local PATIENCE_MS, PAUSE_MS = 60000, 1000

-- Yields.
local function tell(uid, until_ms)
  while clock.now_ms() < until_ms do
    local player, scene = World.find(uid)
    if not player then return end
    if app.rpc.role.roleRemote.place(uid, { uid = uid, scene = scene.number }) then return end
    clock.sleep(PAUSE_MS)
  end
end

-- A role that has been started anew knows of nobody, so it is told who stands here: whose connection has gone meanwhile
-- would stand here for ever. Yields.
function Init.on_peer(instance, up)
  if up or not instance:match("^role%-") then return end
  local uids, until_ms = {}, clock.now_ms() + PATIENCE_MS
  for uid in pairs(state.where) do uids[#uids + 1] = uid end
  table.sort(uids)
  for _, uid in ipairs(uids) do tell(uid, until_ms) end
end

return Init
