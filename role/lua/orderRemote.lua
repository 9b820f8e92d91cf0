-- The owner of a platform's orders: one order is one body, whatever player it names. Keyed by the order.
local Players = require "players"

local Remote = {}
state.orders = state.orders or {}   -- order → fingerprint, until it has surely landed

local OWNER = "order"
local KEPT_MS = 600000

-- The fingerprint the order was taken with, or false. Yields at the first question.
local function taken(order)
  if state.orders[order] then return state.orders[order] end
  local rows, err = db.load(Players.key("order", order),
    "SELECT fingerprint FROM once_done WHERE owner = ? AND once_key = ?", OWNER, order)
  if not rows then return nil, err end
  return state.orders[order] or (rows[1] and rows[1].fingerprint) or false
end

-- Takes the order for this body; the same body may ask again. Yields.
function Remote.claim(args)
  local order = args.order
  local before, err = taken(order)
  if before == nil then return nil, err, "the order could not be looked up" end
  if before then
    if before ~= args.fingerprint then return { conflict = true } end
    db.sync()
    return {}
  end
  if args.look then return {} end
  db.key(Players.key("order", order))
  db.exec("INSERT INTO once_done (owner, once_key, fingerprint, answer, created_us) VALUES (?, ?, ?, ?, ?)",
    OWNER, order, args.fingerprint, "", clock.wall_ms() * 1000)
  db.set(state.orders, order, args.fingerprint)
  clock.after(KEPT_MS, function() state.orders[order] = nil end)
  return {}
end

return Remote
