-- Rewards of kills: a once-call to the player's role. While its outcome is not known it is asked again with the same
-- key, so that a kill is rewarded exactly once, whoever is restarted meanwhile.
local Rewards = {}

state.kills = state.kills or 0

local PATIENCE_MS = 10 * 60 * 1000

local function is_final(err)
  return err ~= "unknown" and err ~= "timeout" and err ~= "unavailable" and err ~= "busy"
end

-- Yields.
local function insist(uid, reward, key)
  local wait_ms, until_ms = 200, clock.now_ms() + PATIENCE_MS
  while true do
    local answer, err, why = app.rpc.role.roleRemote.reward(uid, reward, { once = key })
    if answer then return end
    if is_final(err) or clock.now_ms() > until_ms then
      log.warn("reward.failed", { uid = uid, key = key, error = err, why = why })
      return
    end
    clock.sleep(wait_ms)
    wait_ms = math.min(5000, wait_ms * 2)
  end
end

function Rewards.give(uid, reward)
  state.kills = state.kills + 1
  local key = string.format("%s/%d/%d/%d", app.instance, app.epoch, app.worker, state.kills)
  app.task(insist, uid, reward, key)
end

return Rewards
