-- The owner of a team. Keyed by "team:ID".
local Groups = require "groups"

local Remote = {}

function Remote.change(args)
  return Groups.change(args)
end

return Remote
