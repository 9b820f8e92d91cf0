-- The platforms' pay callbacks: POST /platform/NAME/pay. Granted once per order; the same call gets the same bytes.
local platforms = { demo = require "demo" }

local Pay = {}

local STATUS = { denied = 403, bad_request = 400, not_found = 404, busy = 429, failed = 500, unavailable = 503,
  timeout = 504, unknown = 504 }

local function refuse(status, err, message, effect)
  return status, json.encode { code = status, error = err, message = message, effect = effect or "none" } .. "\n"
end

local FIELDS = { order = "string", uid = "string", product = "string", amount = "number", currency = "string",
  time = "number" }

local function check(call)
  for field, kind in pairs(FIELDS) do
    if type(call[field]) ~= kind then return field .. ": expected a " .. kind end
  end
  for field in pairs(call) do
    if not FIELDS[field] then return field .. ": there is no such field" end
  end
  if #call.order < 1 or #call.order > 64 then return "order: expected 1 to 64 bytes" end
end

-- The order is taken before anything is granted: the same one with another body may name another player, whose owner
-- knows nothing of it. Yields.
local function take_and_grant(uid, args)
  local claim = { order = args.order, uid = uid, fingerprint = args.fingerprint }
  local answer, err, why, effect = app.rpc.role.orderRemote.claim(args.order, claim)
  if not answer then return nil, err, why, effect, err == "bad_request" end
  return app.rpc.role.roleRemote.grant(uid, args)
end

-- Yields.
local function grant(platform, call, gems, body)
  local answer, err, why, effect, conflict = take_and_grant(call.uid, {
    uid = call.uid, gems = gems, order = platform.name .. ":" .. call.order,
    fingerprint = app.hmac("fingerprint", body),
  })
  if conflict then return refuse(409, "bad_request", "order: it was used with another body") end
  if not answer then return refuse(STATUS[err] or 500, err, why, effect) end
  return 200, json.encode { code = 200, order = call.order, gems = gems } .. "\n"
end

-- status, body. Yields.
function Pay.callback(request)
  local name = request.path:match("^/platform/([%w_-]+)/pay$")
  local platform = platforms[name or ""]
  if not platform then return refuse(404, "not_found", "there is no such page here") end
  if request.method ~= "POST" then return refuse(405, "bad_request", "POST it") end
  if not platform.is_signed(request.body, request.signature) then
    return refuse(401, "denied", "X-Signature: wrong signature")
  end
  local call = json.decode(request.body)
  if type(call) ~= "table" then return refuse(400, "bad_request", "the body is not a JSON object") end
  local bad = check(call)
  if bad then return refuse(400, "bad_request", bad) end
  local gems = platform.gems(call.product)
  if not gems then return refuse(404, "not_found", "product: it is not known here") end
  return grant(platform, call, gems, request.body)
end

return Pay
