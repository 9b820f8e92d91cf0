-- The owner of a room. Keyed by the room: "room:RID", "scene:1", "team:17", "world:".
local Members = require "members"

local Remote = {}

function Remote.join(args)
  return Members.join(args.room, args.member)
end

function Remote.leave(args)
  Members.leave(args.room, args.member)
  return {}
end

function Remote.post(args)
  Members.post(args.room, args.message)
  return {}
end

function Remote.history(args)
  return { messages = Members.history(args.room, args.limit) }
end

return Remote
