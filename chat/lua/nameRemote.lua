-- The owner of a player's name: private messages find their way. Keyed by the name.
require "members"

local Remote = {}

function Remote.set(args)
  state.names[args.member.name] = args.member
  return {}
end

function Remote.clear(args)
  local there = state.names[args.member.name]
  if there and there.sid == args.member.sid and there.connector == args.member.connector then
    state.names[args.member.name] = nil
  end
  return {}
end

function Remote.deliver(args)
  local member = state.names[args.name]
  if not member then return { online = false } end
  app.push(member, "onChat", args.message)
  return { online = true }
end

return Remote
