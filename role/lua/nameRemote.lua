-- The owner of names: one name, one player. Keyed by the name.
local Players = require "players"

local Remote = {}

-- state.known_names: { of {name → uid or false}, count }: what was asked lately. nil: forgotten, as after a record
-- was lost.
local NAMES_MAX = 20000

local function known_names()
  local names = state.known_names
  if not names or names.count >= NAMES_MAX then
    names = { of = {}, count = 0 }
    state.known_names = names
  end
  return names
end

-- Who has the name: uid, or false. Yields when it is not known.
local function holder(name)
  local names = known_names()
  if names.of[name] ~= nil then return names.of[name] end
  local rows, err = db.load(Players.key("name", name), "SELECT uid FROM role_name WHERE name = ?", name)
  if not rows then return nil, err end
  if state.known_names ~= names then return holder(name) end   -- forgotten meanwhile: the answer may be of before
  if names.of[name] == nil then
    names.of[name] = rows[1] and rows[1].uid or false
    names.count = names.count + 1
  end
  return names.of[name]
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
  db.set(state.known_names.of, args.name, args.uid)
  return { taken = false }
end

-- Gives it back after a rename. Yields.
function Remote.release(args)
  if holder(args.name) ~= args.uid then return { taken = true } end
  db.key(Players.key("name", args.name))
  db.exec("DELETE FROM role_name WHERE name = ? AND uid = ?", args.name, args.uid)
  db.set(state.known_names.of, args.name, false)
  return { taken = false }
end

return Remote
