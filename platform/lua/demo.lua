-- The built-in platform "demo": it signs with a key that it and we know (var/keys/platform-demo.key).
local Demo = { name = "demo" }

local PRODUCTS = { gems_100 = 100 }
local KEY = app.key("platform-demo.key")

-- credential is EXPIRY.HMAC(account.EXPIRY), EXPIRY in Unix seconds.
function Demo.verify(account, credential)
  local expiry, signature = credential:match("^(%d+)%.(%x+)$")
  if not expiry then return nil, "denied", "credential: expected EXPIRY.SIGNATURE" end
  local expected = app.hmac(KEY, account .. "." .. expiry)
  if not app.same(expected, signature:lower()) then return nil, "denied", "credential: wrong signature" end
  if #expiry > 12 or tonumber(expiry) * 1000 < clock.wall_ms() then
    return nil, "denied", "credential: it has expired"
  end
  return Demo.name .. ":" .. account
end

function Demo.is_signed(body, signature)
  return app.same(app.hmac(KEY, body), signature:lower())
end

function Demo.gems(product)
  return PRODUCTS[product]
end

return Demo
