-- Pay callbacks and logins of the demo platform.
local KEY = app.key("platform-demo.key")

local function call_of(changes)
  local call = {
    order = "o1", uid = "ann", product = "gems_100", amount = 499, currency = "EUR", time = clock.wall_ms() // 1000,
  }
  for name, value in pairs(changes or {}) do call[name] = value end
  return call
end

local function pay(call, signature)
  local body = type(call) == "string" and call or json.encode(call)
  local status, answer = test.http("POST", "/platform/demo/pay", body, signature or app.hmac(KEY, body))
  return status, json.decode(answer)
end

test.before(function()
  test.fake("role.orderRemote.claim", {})
  test.fake("role.roleRemote.grant", function(args) return { gems = args.gems } end)
end)

test("a signed callback is granted by the role", function()
  local status, answer = pay(call_of())
  test.equal(status, 200)
  test.equal(answer, { code = 200, order = "o1", gems = 100 })
  test.has(test.calls("role.roleRemote.grant")[1].args, { uid = "ann", gems = 100, order = "demo:o1" })
end)

test("a wrong signature is refused before anything else", function()
  local status, answer = pay("not even JSON", ("0"):rep(64))
  test.equal(status, 401)
  test.equal(answer.error, "denied")
  test.equal(#test.calls("role.orderRemote.claim"), 0)
end)

test("a body that is no call is refused by its field", function()
  test.equal((pay("[1,")), 400)
  test.equal((pay("7")), 400)
  for field, value in pairs { order = 1, uid = 2, amount = "x", time = "now", more = 1 } do
    local status, answer = pay(call_of { [field] = value })
    test.equal(status, 400)
    test.holds(answer.message:find(field, 1, true), answer.message)
  end
  test.equal((pay(call_of { order = "" })), 400)
end)

test("a callback that is repeated years later gets the bytes of the first", function()
  local status, answer = pay(call_of { time = 1 })
  test.equal(status, 200)
  test.equal(answer, { code = 200, order = "o1", gems = 100 })
end)

test("an order is known by its whole body", function()
  local changes = { {}, {}, { amount = 500 }, { currency = "USD" }, { time = 1 } }
  for _, change in ipairs(changes) do pay(call_of(change)) end
  for _, method in ipairs { "role.orderRemote.claim", "role.roleRemote.grant" } do
    local calls = test.calls(method)
    test.equal(calls[2].args.fingerprint, calls[1].args.fingerprint)
    for i = 3, #changes do test.holds(calls[i].args.fingerprint ~= calls[1].args.fingerprint) end
  end
end)

test("a product that is not sold is not found", function()
  test.equal((pay(call_of { product = "gems_7" })), 404)
end)

test("an order with another body is a conflict", function()
  test.fake("role.orderRemote.claim", function() return nil, "bad_request", "order: another body" end)
  local status, answer = pay(call_of())
  test.equal(status, 409)
  test.equal(answer.error, "bad_request")
end)

test("a player without a role is not found, an outcome that is not known says so", function()
  test.fake("role.orderRemote.claim", function() return nil, "not_found", "no role" end)
  test.equal((pay(call_of())), 404)
  test.fake("role.orderRemote.claim", {})
  test.fake("role.roleRemote.grant", function() return nil, "unknown", "ask again", "unknown" end)
  local status, answer = pay(call_of())
  test.equal(status, 504)
  test.has(answer, { error = "unknown", effect = "unknown" })
end)

test("other paths and methods are refused", function()
  test.equal((test.http("POST", "/platform/other/pay", "", "")), 404)
  test.equal((test.http("GET", "/platform/demo/pay", "", "")), 405)
end)

local function verify(changes)
  local expiry = tostring(clock.wall_ms() // 1000 + 60)
  local args = { platform = "demo", account = "17", credential = expiry .. "." .. app.hmac(KEY, "17." .. expiry) }
  for name, value in pairs(changes or {}) do args[name] = value end
  return test.call("platform.platformRemote.verify", "17", args)
end

test("a credential that is signed and fresh is a uid", function()
  test.equal(verify(), { uid = "demo:17" })
end)

test("one of somebody else, an old one or a wrong one is denied", function()
  local args = { credential = "12.ab" }
  for _, changes in ipairs { { account = "18" }, args, { credential = "x" } } do
    local _, err = verify(changes)
    test.equal(err, "denied")
  end
  local old = "1000." .. app.hmac(KEY, "17.1000")
  local _, err, why = verify { credential = old }
  test.equal(err, "denied")
  test.holds(why:find("expired", 1, true))
end)

test("an unknown platform and a strange account are refused", function()
  local _, err = verify { platform = "other" }
  test.equal(err, "not_found")
  _, err = verify { account = "a*b" }
  test.equal(err, "bad_request")
end)
