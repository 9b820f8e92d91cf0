-- The owner of names: one name, one player. Keyed by the name.
local Players = require "players"

local Remote = {}
state.names = state.names or {}   -- name → uid

-- Who has the name: uid, or false. Yields at the first question.
local function holder(name)
  local known = state.names[name]
  if known ~= nil then return known end
  local rows, err = db.load(Players.key("name", name), "SELECT uid FROM role_name WHERE name = ?", name)
  if not rows then return nil, err end
  if state.names[name] == nil then
    state.names[name] = rows[1] and rows[1].uid or false
  end
  return state.names[name]
end

-- Takes the name for the player; the same player may ask again. Yields.
function Remote.claim(args)
  local uid, err = holder(args.name)
  if uid == nil then return nil, err, "the name could not be looked up" end
  if uid == args.uid then
    db.sync()
    return { taken = false }
  end
  if uid then return { taken = true } end
  db.key(Players.key("name", args.name))
  db.exec("INSERT INTO role_name (name, uid) VALUES (?, ?)", args.name, args.uid)
  db.set(state.names, args.name, args.uid)
  return { taken = false }
end

-- Gives it back after a rename. Yields.
function Remote.release(args)
  if holder(args.name) ~= args.uid then return { taken = true } end
  db.key(Players.key("name", args.name))
  db.exec("DELETE FROM role_name WHERE name = ? AND uid = ?", args.name, args.uid)
  db.set(state.names, args.name, false)
  return { taken = false }
end

return Remote
