-- The shop and the bag: what is charged, given and written.
local function login(uid)
  local session = test.session(uid)
  test.call("role.roleRemote.login", uid,
    { uid = uid, connector = session.connector, sid = session.sid, guest = true, create = true })
  return session
end

local function buy(session, order, item, count)
  return session:request("role.shopHandler.buy", { item = item, count = count, order = order })
end

local ann

test.before(function() ann = login("ann") end)

local function reward(args)
  args.uid = "ann"
  return test.call("role.roleRemote.reward", "ann", args, { from = "scene-1" })
end

test("a reward is of no less than nothing and of no more than fits, and changes all of it or nothing", function()
  for field, amounts in pairs {
    gold = { -1, 1 << 53, math.maxinteger, math.mininteger }, exp = { -1, (1 << 53) + 1, math.maxinteger },
    count = { 0, -5, 0x7fffffff },
  } do
    for _, amount in ipairs(amounts) do
      reward { gold = 0, item = 1, count = 1 }
      local answer, err, why = reward { exp = 1, item = 1, [field] = amount }
      test.equal(answer, nil)
      test.equal(err, "bad_request")
      test.holds(why:find(field, 1, true), why)
    end
  end
  test.equal(test.rows("SELECT item, count FROM bag"), { { item = 1, count = 10 } })
  test.equal(test.rows("SELECT gold, exp FROM role"), { { gold = 1000, exp = 0 } })
  test.holds(reward { gold = (1 << 53) - 1000, exp = 1 << 53, item = 1, count = 0x7fffffff - 10 })
  test.equal(reward { gold = 1 }, nil)
  test.refused(buy(ann, "o1", 1, 1), "denied", "carry")
  test.equal(#ann:request("role.bagHandler.list").items, 1)
end)

test("a payment is of no less than nothing and of no more than fits", function()
  local function grant(order, gems)
    local args = { uid = "ann", gems = gems, order = order }
    return test.call("role.roleRemote.grant", "ann", args, { from = "platform-1" })
  end
  test.equal(select(2, grant("a", -1)), "bad_request")
  test.equal(select(2, grant("b", math.maxinteger)), "bad_request")
  test.equal(grant("c", 1 << 53).gems, 1 << 53)
  test.equal(select(2, grant("d", 1)), "bad_request")
  test.equal(test.rows("SELECT gems FROM role"), { { gems = 1 << 53 } })
end)

test("a purchase takes the gold and gives the item", function()
  test.equal(buy(ann, "o1", 1, 2), { code = 200, gold = 980, item = 1, count = 2 })
  test.equal(ann:request("role.bagHandler.list").items, { { item = 1, count = 2 } })
end)

test("a purchase is in the database with its answer", function()
  buy(ann, "o1", 1, 2)
  local role = test.rows("SELECT id, gold FROM role WHERE uid = ?", "ann")[1]
  test.equal(role.gold, 980)
  test.equal(test.rows("SELECT item, count FROM bag WHERE role_id = ?", role.id), { { item = 1, count = 2 } })
  test.equal(#test.rows("SELECT once_key FROM loquat_once WHERE once_key = ?", "o1"), 1)
end)

test("the same order again is answered alike and charged once", function()
  local first = buy(ann, "o1", 1, 2)
  test.equal(buy(ann, "o1", 1, 2), first)
  test.equal(test.rows("SELECT gold FROM role")[1].gold, 980)
end)

test("two of the same order at once are charged once", function()
  local other = test.session("ann")
  local a = ann:send("role.shopHandler.buy", { item = 1, count = 1, order = "o1" })
  local b = other:send("role.shopHandler.buy", { item = 1, count = 1, order = "o1" })
  test.equal(a:wait(), b:wait())
  test.equal(test.rows("SELECT gold FROM role")[1].gold, 990)
end)

test("the same order for something else is refused by its name", function()
  buy(ann, "o1", 1, 2)
  test.refused(buy(ann, "o1", 1, 3), "bad_request", "order")
end)

-- As it was written when rows had their fingerprint from another function; a key's hash never changes (rpc/once.h).
test("an order from before today's fingerprints is answered and not charged again", function()
  local answer = '{"code":200,"gold":980,"item":1,"count":2}'
  test.rows("INSERT INTO loquat_once"
    .. " (owner, client, method, once_key, seq, hash, fingerprint, json, answer, created_us)"
    .. " VALUES (?, ?, ?, ?, 4, 2744414298965754662, 77, 1, ?, 1)", "role/bob", "", "shopHandler.buy", "o0", answer)
  local bob = login("bob")
  test.equal(buy(bob, "o0", 1, 2), { code = 200, gold = 980, item = 1, count = 2 })
  test.equal(test.rows("SELECT gold FROM role WHERE uid = ?", "bob")[1].gold, 1000)
  test.refused(buy(bob, "o1", 1, 999), "denied", "gold")
  test.equal(buy(bob, "o1", 1, 2).gold, 980)
  test.equal(test.rows("SELECT fingerprint FROM loquat_once WHERE once_key = ?", "o1")[1].fingerprint, 0)
end)

test("who has too little gold changes nothing, and the order may be asked again", function()
  test.refused(buy(ann, "o1", 3, 6), "denied", "gold")
  test.equal(test.rows("SELECT gold FROM role")[1].gold, 1000)
  test.equal(buy(ann, "o1", 3, 5).gold, 0)
end)

test("what the shop does not have is not found", function()
  test.refused(buy(ann, "o1", 99, 1), "not_found")
  test.refused(buy(ann, "o2", 5, 1), "not_found")
end)

test("counts and orders have bounds", function()
  test.refused(buy(ann, "o1", 1, 0), "bad_request", "count")
  test.refused(buy(ann, "o1", 1, 1000), "bad_request", "count")
  test.refused(buy(ann, "", 1, 1), "bad_request", "order")
  test.refused(buy(ann, ("x"):rep(65), 1, 1), "bad_request", "order")
  test.refused(ann:request("role.shopHandler.buy", { item = "one", count = 1, order = "o" }), "bad_request", "item")
  test.refused(ann:request("role.shopHandler.buy", { item = 1, count = 1 }), "bad_request", "order")
end)

test("a record that the log refuses leaves nothing behind", function()
  test.sqllog("unavailable")
  test.has(buy(ann, "o1", 1, 2), { error = "unavailable", effect = "none" })
  test.sqllog(nil)
  test.equal(ann:request("role.roleHandler.get").role.gold, 1000)
  test.equal(buy(ann, "o1", 1, 2).gold, 980)
end)

test("a record that was lost is unknown, and the player is loaded anew", function()
  test.sqllog("unknown")
  test.has(buy(ann, "o1", 1, 2), { error = "unknown", effect = "unknown" })
  test.sqllog(nil)
  test.equal(ann:request("role.roleHandler.get").role.gold, 1000)
end)

test("a scroll gives experience and is used up", function()
  buy(ann, "o1", 2, 3)
  test.equal(ann:request("role.bagHandler.use", { item = 2, count = 2 }).items, { { item = 2, count = 1 } })
  test.equal(ann:request("role.roleHandler.get").role.exp, 40)
end)

test("who does not have so many keeps them", function()
  buy(ann, "o1", 2, 1)
  test.refused(ann:request("role.bagHandler.use", { item = 2, count = 2 }), "denied")
  test.refused(ann:request("role.bagHandler.drop", { item = 2, count = 2 }), "denied")
  test.refused(ann:request("role.bagHandler.drop", { item = 2, count = 0 }), "bad_request", "count")
  test.refused(ann:request("role.bagHandler.use", { item = 77 }), "not_found")
end)

test("the last one thrown away leaves no row", function()
  buy(ann, "o1", 2, 1)
  test.equal(ann:request("role.bagHandler.drop", { item = 2, count = 1 }).items, {})
  test.equal(test.rows("SELECT item FROM bag"), {})
end)
