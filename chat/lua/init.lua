-- chat: nothing to prepare; rooms are made when somebody comes.
local Members = require "members"

local Init = {}

-- A player's connection has ended, and the player is in the room no more.
function Init.on_leave(room, member)
  Members.left(room, member)
end

return Init
