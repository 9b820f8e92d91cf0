-- The owner of a platform's orders: one order is one body, whatever player it names. Keyed by the order.
local Remote = {}

-- Takes the order for this body, once: the same body may ask again, another is refused as bad_request. Who has no role
-- takes none, so that the platform may correct itself. Yields.
function Remote.claim(args)
  local role, err, why, effect = app.rpc.role.roleRemote.get(args.uid, { uid = args.uid })
  if not role then return nil, err, why, effect end
  return {}
end

return Remote
