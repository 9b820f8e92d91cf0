-- Rewards of kills: a once-call to the player's role, which is repeated until its outcome is known: a kill is rewarded
-- exactly once, whoever is restarted meanwhile.
local Rewards = {}

local PATIENCE_MS = 10 * 60 * 1000

-- What changed nothing is asked anew. Yields.
local function insist(uid, reward)
  local wait_ms, until_ms = 200, clock.now_ms() + PATIENCE_MS
  while true do
    local options = { timeout_ms = math.max(1, until_ms - clock.now_ms()) }
    local answer, err, why, effect = app.rpc.role.roleRemote.reward(uid, reward, options)
    if answer then return end
    local passing = effect == "none" and (err == "unavailable" or err == "busy")
    if not passing or clock.now_ms() > until_ms then
      log.warn("reward.failed", { uid = uid, error = err, why = why })
      return
    end
    clock.sleep(wait_ms)
    wait_ms = math.min(5000, wait_ms * 2)
  end
end

function Rewards.give(uid, reward)
  app.task(insist, uid, reward)
end

return Rewards
