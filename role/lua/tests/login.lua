-- Who is online, names, and roles of accounts.
local function login(session, extra)
  local args = { uid = session.uid, connector = session.connector, sid = session.sid, guest = true, create = true }
  for name, value in pairs(extra or {}) do args[name] = value end
  return test.call("role.roleRemote.login", session.uid, args)
end

local function alive(is)
  test.fake("connector.connectorRemote.alive", { alive = is })
end

test("a guest's first login makes a role of its name", function()
  local answer = test.holds(login(test.session("ann")))
  test.has(answer.role, { uid = "ann", name = "ann", gold = 1000, level = 1, scene = 1 })
  test.holds(answer.resume)
  test.equal(test.rows("SELECT name, gold FROM role"), { { name = "ann", gold = 1000 } })
  test.equal(test.rows("SELECT name, uid FROM role_name"), { { name = "ann", uid = "ann" } })
end)

test("a name that another has gets a number", function()
  test.rows("INSERT INTO role_name (name, uid) VALUES (?, ?)", "ann", "demo:17")
  test.equal(login(test.session("ann")).role.name, "ann#2")
end)

test("who is stopped for its budget does not keep a player to itself", function()
  local Players = require "players"
  local ann = test.session("ann")
  login(ann)
  clock.after(1, function()
    Players.locked(state.players.ann, function() return ("a"):rep(40):find(("a?"):rep(40) .. ("a"):rep(40)) end)
  end)
  test.turn(10)
  test.holds(test.log():find("stopped: it ran for more than its budget", 1, true))
  alive(false)
  test.holds(not login(test.session("ann")).refused)
end)

test("a player who may have been another's while it was loaded is read anew", function()
  local Players = require "players"
  login(test.session("ann"))
  local in_between = 0
  for reads = 0, 8 do   -- so many have been answered when players move
    Players.forget_key(Players.key("uid", "ann"))
    local player
    app.task(function() player = Players.get("ann") end)
    for _ = 1, reads do db.query("SELECT name FROM role_name") end
    test.rows("UPDATE role SET gold = ? WHERE uid = ?", 2000 + reads, "ann")
    local loaded = state.players.ann
    Players.moved()
    test.turn(10)
    if not loaded then
      in_between = in_between + 1
      test.equal(player.role.gold, 2000 + reads)
    end
  end
  test.holds(in_between > 2)
end)

test("a name that is asked for again is answered only when its record has landed", function()
  test.sqllog("unknown")
  local args = { name = "zoe", uid = "ann" }
  local first = test.send("role.nameRemote.claim", "zoe", args)
  local second = test.send("role.nameRemote.claim", "zoe", args)
  local _, err = first:wait()
  test.equal(err, "unknown")
  _, err = second:wait()
  test.equal(err, "unknown")
end)

test("a guest is refused while the older connection lives", function()
  login(test.session("ann"))
  alive(true)
  test.has(login(test.session("ann")), { refused = true })
end)

test("a guest may come back when the older connection is dead", function()
  login(test.session("ann"))
  alive(false)
  test.holds(not login(test.session("ann")).refused)
end)

test("a login with a token throws the older connection out", function()
  local older = test.session("ann")
  login(older)
  alive(true)
  test.holds(not login(test.session("ann"), { guest = false }).refused)
  test.holds(older.kicked)
end)

test("who has gone comes back to where it stood, whatever the scene is told last", function()
  test.fake("team.teamRemote.online", {})
  local ann = test.session("ann")
  local function stands(x, gone)
    local args = { uid = "ann", scene = 2, x = x, y = 5.0, gone = gone }
    test.call("role.roleRemote.place", "ann", args, { from = "scene-1" })
  end
  login(ann)
  stands(1.0)
  test.fake("scene.sceneRemote.leave", {})
  test.call("role.roleRemote.logout", "ann", { uid = "ann", connector = ann.connector, sid = ann.sid })
  test.turn(40000)
  test.equal(#test.calls("scene.sceneRemote.leave"), 1)
  stands(77.0, true)   -- the scene's last word comes when the player is forgotten
  test.equal(test.rows("SELECT scene, x, y FROM role"), { { scene = 2, x = 77.0, y = 5.0 } })
  test.has(login(test.session("ann")).role, { scene = 2, x = 77.0, y = 5.0 })
  stands(78.0)
  test.has(ann:request("role.roleHandler.get").role, { x = 78.0 })
end)

test("who stands in a scene when this instance starts anew is sent away if it does not come", function()
  test.fake("team.teamRemote.online", {})
  test.fake("scene.sceneRemote.leave", {})
  test.fake("scene.sceneRemote.rebind", { there = true })
  local records, ann, bob = #test.records(), test.session("ann"), test.session("bob")
  for _, uid in ipairs { "ann", "bob", "cid" } do
    test.call("role.roleRemote.place", uid, { uid = uid, scene = 2 }, { from = "scene-1" })
  end
  test.call("role.roleRemote.announce", "", { connector = ann.connector, last = true,
    online = { { uid = "ann", sid = ann.sid, scene = "2" } } }, { from = "connector-1" })
  test.call("role.roleRemote.place", "dan", { uid = "dan", gone = true }, { from = "scene-1" })
  test.equal(#test.records(), records)
  test.equal(login(bob).scene, "2")
  test.turn(40000)
  local away = test.calls("scene.sceneRemote.leave")
  test.equal(#away, 1)
  test.has(away[1].args, { uid = "cid", scene = 2 })
  test.equal(test.calls("team.teamRemote.online")[2].args, { uid = "cid", gone = true })
end)

test("a name of 64 bytes is as good as any, and one of 65 is not", function()
  test.fake("team.teamRemote.online", {})
  test.fake("chat.chatRemote.rename", {})
  local ann = test.session("ann")
  login(ann)
  test.has(ann:request("role.roleHandler.rename", { name = ("x"):rep(64) }), { code = 200 })
  test.refused(ann:request("role.roleHandler.rename", { name = ("x"):rep(65) }), "bad_request", "name")
end)

test("of two connections that both believe to be the player's the older one stays", function()
  local here, left_behind = test.session("ann"), test.session("ann")
  login(here)
  test.call("role.roleRemote.announce", "", { connector = left_behind.connector, last = true,
    online = { { uid = "ann", sid = left_behind.sid }, { uid = "ann", sid = here.sid } } }, { from = "connector-1" })
  test.holds(left_behind.kicked)
  test.equal(here.kicked, nil)
end)

test("who is forgotten while its role is made gets none, and one at the next login", function()
  local Players = require "players"
  test.fake("role.nameRemote.claim", function()
    Players.forget_key("uid:ann")
    return { taken = false }
  end)
  local answer, err, _, effect = login(test.session("ann"))
  test.equal(answer, nil)
  test.equal(err, "unavailable")
  test.equal(effect, "unknown")   -- the name is its own already; and so the connector asks again
  test.equal(#test.rows("SELECT id FROM role"), 0)
  test.fake("role.nameRemote.claim", { taken = false })
  test.holds(login(test.session("ann")).role)
  test.equal(#test.rows("SELECT id FROM role"), 1)
end)

test("who waits for a login of the same player does not go on with what was forgotten meanwhile", function()
  local Players = require "players"
  login(test.session("ann"))
  local player, seen, err = state.players.ann, 0, nil
  app.task(Players.locked, player, function() clock.sleep(100) return true end)
  app.task(function() err = select(2, Players.locked(player, function() seen = seen + 1 return true end)) end)
  test.lost("uid:ann")
  test.turn(200)
  test.equal(seen, 0)
  test.equal(err, "unavailable")
end)

test("a record of a long name that is lost takes the player out of memory too", function()
  local uid = ("ü "):rep(20)
  login(test.session(uid))
  local records = test.records()
  local key
  for found in table.concat({ json.encode(records) }):gmatch("uid:[^,\"]*") do key = found end
  test.holds(#key <= 68 and key:find("~", 1, true), key)
  test.rows("UPDATE role SET gold = ? WHERE uid = ?", 7, uid)
  test.lost(key)
  test.equal(test.call("role.roleRemote.get", uid, { uid = uid }).gold, 7)
end)

test("a resume token is good once", function()
  local first = login(test.session("ann"))
  alive(false)
  local second = login(test.session("ann"), { resume = first.resume })
  test.equal(second.resumed, true)
  local answer, err = login(test.session("ann"), { resume = first.resume })
  test.equal(answer, nil)
  test.equal(err, "denied")
end)

test("a login that is asked again, its answer being lost, is answered as the first", function()
  local first = login(test.session("ann"))
  alive(false)
  local again = test.session("ann")
  test.equal(login(again, { resume = first.resume }).resumed, true)
  test.equal(login(again, { resume = first.resume }).resumed, true)
  test.equal(select(2, login(test.session("ann"), { resume = first.resume })), "denied")
  test.holds(not login(again).refused)
  local gone = test.session("bob")   -- whose session is known to nobody any more
  test.equal(login(gone, { resume = "long ago" }).resumed, false)
  test.equal(login(gone, { resume = "long ago" }).resumed, false)
  test.equal(select(2, login(test.session("bob"), { resume = "long ago" })), "denied")
end)

test("a resume token that was used is void also when the player has gone", function()
  local first = login(test.session("ann"))
  alive(false)
  local ann = test.session("ann")
  local second = login(ann, { resume = first.resume })
  test.call("role.roleRemote.logout", "ann", { uid = "ann", connector = ann.connector, sid = ann.sid })
  test.turn(31000)
  test.equal(state.players.ann, nil)
  local answer, err = login(test.session("ann"), { resume = first.resume })
  test.equal(answer, nil)
  test.equal(err, "denied")
  test.turn(31000)   -- who was refused is as gone as before
  test.equal(select(2, login(test.session("ann"), { resume = first.resume })), "denied")
  test.equal(login(test.session("ann"), { resume = second.resume }).resumed, false)
  test.equal(select(2, login(test.session("ann"), { resume = second.resume })), "denied")
end)

test("a resume token is void after a kick", function()
  local ann = test.session("ann")
  local token = login(ann).resume
  alive(false)
  test.call("role.roleRemote.logout", "ann", { uid = "ann", connector = ann.connector, sid = ann.sid, kicked = true })
  test.equal(select(2, login(test.session("ann"), { resume = token })), "denied")
  test.turn(31000)
  test.equal(select(2, login(test.session("ann"), { resume = token })), "denied")
  test.holds(login(test.session("ann")).resume)
end)

test("who left is forgotten after its grace, and the scene is told", function()
  local ann = test.session("ann")
  login(ann)
  test.call("role.roleRemote.place", "ann", { uid = "ann", scene = 2, x = 5.0, y = 6.0 })
  test.call("role.roleRemote.logout", "ann", { uid = "ann", connector = ann.connector, sid = ann.sid })
  test.turn(29000)
  test.holds(state.players.ann)
  test.turn(2000)
  test.equal(state.players.ann, nil)
  test.equal(test.calls("scene.sceneRemote.leave")[1].args, { uid = "ann", scene = 2 })
  test.has(test.rows("SELECT scene, x, y FROM role")[1], { scene = 2, x = 5.0, y = 6.0 })
end)

test("the logout of an older connection changes nothing", function()
  local ann = test.session("ann")
  login(ann)
  test.call("role.roleRemote.logout", "ann", { uid = "ann", connector = ann.connector, sid = 999 })
  test.holds(state.players.ann.session)
end)

test("a connector that went away has its players looked at", function()
  local ann, bob = test.session("ann"), test.session("bob", { connector = "connector-2" })
  login(ann)
  login(bob)
  alive(false)
  test.peer("connector-1", false)
  test.turn(6000)
  test.equal(state.players.ann.session, nil)
  test.holds(state.players.bob.session)
end)

test("connectors that announce their sessions are not asked twice", function()
  test.call("role.roleRemote.announce", "", {
    connector = "connector-1", worker = 0, last = true, online = { { uid = "ann", sid = 7, rid = "world" } },
  })
  alive(true)
  test.has(login(test.session("ann")), { refused = true })
  test.equal(test.calls("connector.connectorRemote.alive")[1].args, { sid = 7 })
end)

test("an account has no role until it makes one", function()
  local ann = test.session("demo:1")
  test.equal(login(ann, { guest = false, create = false }).role, nil)
  test.refused(ann:request("role.roleHandler.get"), "not_found")
  test.has(ann:request("role.roleHandler.create", { name = "Anna" }).role, { name = "Anna" })
  test.equal(ann.attributes.name, "Anna")
  test.refused(ann:request("role.roleHandler.create", { name = "Anna" }), "denied")
end)

test("a name that is taken, too long or no text is refused", function()
  local ann = test.session("demo:1")
  login(test.session("bob"))
  login(ann, { guest = false, create = false })
  test.refused(ann:request("role.roleHandler.create", { name = "bob" }), "denied", "taken")
  test.refused(ann:request("role.roleHandler.create", { name = "" }), "bad_request", "name")
  test.refused(ann:request("role.roleHandler.create", { name = ("x"):rep(65) }), "bad_request", "name")
  test.refused(ann:request("role.roleHandler.create", { name = "a*b" }), "bad_request", "name")
end)

test("a new name frees the old one and is told to team and chat", function()
  local ann = test.session("ann")
  login(ann)
  test.equal(ann:request("role.roleHandler.rename", { name = "anna" }).role.name, "anna")
  test.equal(test.rows("SELECT name FROM role_name"), { { name = "anna" } })
  test.equal(test.calls("chat.chatRemote.rename")[1].args, { uid = "ann", name = "anna" })
  test.has(test.calls("team.teamRemote.online")[2].args, { uid = "ann", name = "anna" })
end)

test("while the database is away who is not in memory is unavailable", function()
  login(test.session("ann"))
  test.database(false)
  test.refused(test.session("bob"):request("role.roleHandler.get"), "unavailable")
  test.has(test.session("ann"):request("role.roleHandler.get"), { code = 200 })
end)

test("a payment is granted once", function()
  login(test.session("ann"))
  local pay = { uid = "ann", gems = 100, order = "demo:1", fingerprint = "f" }
  test.equal(test.call("role.roleRemote.grant", "ann", pay), { gems = 100 })
  test.equal(test.call("role.roleRemote.grant", "ann", pay), { gems = 100 })
  test.equal(test.rows("SELECT gems FROM role")[1].gems, 100)
end)

test("an order belongs to the body that came first", function()
  login(test.session("ann"))
  local claim = { order = "demo:1", fingerprint = "f", uid = "ann" }
  test.holds(test.call("role.orderRemote.claim", "demo:1", claim))
  test.holds(test.call("role.orderRemote.claim", "demo:1", claim))
  claim.fingerprint = "other"
  local _, err = test.call("role.orderRemote.claim", "demo:1", claim)
  test.equal(err, "bad_request")
end)

test("only the services that are named may call", function()
  local args = { uid = "ann", connector = "c", sid = 1 }
  local _, err = test.call("role.roleRemote.login", "ann", args, { from = "chat-1" })
  test.equal(err, "denied")
end)
