-- Rooms, names, history.
local function come(name, rid)
  local session = test.session(name)
  session.name = name
  local member = { uid = name, name = name, connector = session.connector, sid = session.sid }
  session.answer = test.holds(test.call("chat.chatRemote.add", name, { member = member, rid = rid }))
  session.member = member
  return session
end

local function go(session)
  test.call("chat.chatRemote.remove", session.uid,
    { uid = session.uid, connector = session.connector, sid = session.sid })
  session:close()
end

local function say(session, message)
  return session:request("chat.chatHandler.send", message)
end

local ann, bob

test.before(function()
  ann = come("ann", "tavern")
  bob = come("bob", "tavern")
end)

test("who comes is told the names, and the others that it came", function()
  test.equal(bob.answer.users, { "ann", "bob" })
  test.equal(ann:pushed("onAdd"), { user = "bob" })
  test.equal(bob:pushed("onAdd"), nil)
end)

test("what is said in a room reaches all of it, its speaker too, and nobody else", function()
  local eve = come("eve", "cellar")
  test.equal(say(ann, { content = "hi", target = "*", from = "somebody else" }).code, 200)
  for _, session in ipairs { ann, bob } do
    test.has(session:pushed("onChat"), { msg = "hi", from = "ann", target = "*", channel = "room" })
  end
  test.equal(eve:pushed("onChat"), nil)
end)

test("the world reaches every room", function()
  local eve = come("eve", "cellar")
  say(ann, { content = "hi", channel = "world" })
  test.has(eve:pushed("onChat"), { msg = "hi", channel = "world" })
end)

test("a player's name reaches that player only", function()
  say(ann, { content = "psst", target = "bob" })
  test.has(bob:pushed("onChat"), { msg = "psst", from = "ann", channel = "private" })
  test.equal(ann:pushed("onChat"), nil)
end)

test("who speaks too fast is busy, until it has rested", function()
  test.config("chat.per_s", 2)
  for _ = 1, 10 do test.equal(say(ann, { content = "hi" }).code, 200) end
  test.refused(say(ann, { content = "hi" }), "busy", "fast")
  test.equal(say(bob, { content = "hi" }).code, 200)
  test.turn(1000)
  for _ = 1, 2 do test.equal(say(ann, { content = "hi" }).code, 200) end
  test.refused(say(ann, { content = "hi" }), "busy", "fast")
  test.config("chat.per_s", 0)
end)

test("refusals say what is wrong", function()
  test.refused(say(ann, { content = "x", target = "nobody" }), "not_found", "online")
  test.refused(say(ann, { content = "x", channel = "private" }), "bad_request", "name")
  test.refused(say(ann, { content = "x", channel = "market" }), "bad_request", "channel")
  test.refused(say(ann, { content = "x", rid = "cellar" }), "denied", "rid")
  test.refused(say(ann, { content = "x", channel = "team" }), "denied", "team")
  test.refused(say(ann, { content = ("x"):rep(2001) }), "bad_request", "content")
  test.refused(say(ann, { target = "*" }), "bad_request", "content")
  test.refused(say(test.session("eve"), { content = "x" }), "unavailable")
end)

test("a channel of one's scene and team reaches who is there", function()
  for _, session in ipairs { ann, bob } do
    test.call("chat.chatRemote.place", session.uid, { uid = session.uid, channel = "scene", value = "1" })
  end
  say(ann, { content = "here", channel = "scene" })
  test.has(bob:pushed("onChat"), { msg = "here", channel = "scene" })
  test.call("chat.chatRemote.place", "bob", { uid = "bob", channel = "scene", value = "2" })
  bob:clear()
  say(ann, { content = "there?", channel = "scene" })
  test.equal(bob:pushed("onChat"), nil)
  test.call("chat.chatRemote.place", "bob", { uid = "bob", channel = "scene" })
  test.refused(say(bob, { content = "x", channel = "scene" }), "denied")
end)

test("who left is announced, once, and only by its own connection", function()
  test.call("chat.chatRemote.remove", "bob", { uid = "bob", connector = "connector-9", sid = 1 })
  test.equal(ann:pushed("onLeave"), nil)
  test.session("eve"):close()
  test.equal(ann:pushed("onLeave"), nil)
  go(bob)
  test.equal(ann:pushed("onLeave"), { user = "bob" })
  ann:clear()
  bob:close()
  test.equal(ann:pushed("onLeave"), nil)
  test.refused(say(ann, { content = "x", target = "bob" }), "not_found")
end)

test("who comes by another connection stays, and the end of the older one is not heard", function()
  local before = bob
  bob = come("bob", "tavern")
  ann:clear()
  before:close()
  test.equal(ann.pushes, {})
  say(ann, { content = "hi" })
  test.has(bob:pushed("onChat"), { msg = "hi" })
end)

test("the end of an older connection does not silence the newer one", function()
  local again = come("ann", "tavern")
  go(ann)
  test.equal(say(again, { content = "here", target = "*" }).code, 200)
  test.equal(say(bob, { content = "psst", target = "ann" }).code, 200)
end)

test("who goes to another room leaves the first", function()
  bob = come("bob", "cellar")
  test.equal(ann:pushed("onLeave"), { user = "bob" })
  test.equal(bob.answer.users, { "bob" })
end)

test("a new name is heard as a leave and a come", function()
  test.call("chat.chatRemote.rename", "bob", { uid = "bob", name = "rob" }, { from = "role-1" })
  test.equal(ann:pushed("onLeave"), { user = "bob" })
  test.equal(ann:pushed("onAdd"), { user = "rob" })
  say(ann, { content = "psst", target = "rob" })
  test.has(bob:pushed("onChat"), { msg = "psst" })
  test.refused(say(ann, { content = "x", target = "bob" }), "not_found")
end)

test("where nothing was said the history is an empty list", function()
  test.equal(ann:request("chat.chatHandler.history", {}), { code = 200, messages = {} })
end)

test("history holds the last of what was said", function()
  for i = 1, 120 do say(ann, { content = "n" .. i }) end
  local messages = bob:request("chat.chatHandler.history", { limit = 3 }).messages
  test.equal(#messages, 3)
  test.equal(messages[3].msg, "n120")
  test.equal(#bob:request("chat.chatHandler.history", { limit = 1000 }).messages, 100)
  test.refused(bob:request("chat.chatHandler.history", { channel = "private" }), "bad_request", "history")
  test.refused(test.session("eve"):request("chat.chatHandler.history", {}), "unavailable")
end)

test("an empty room is forgotten, and its history is kept for a while", function()
  say(ann, { content = "bye" })
  go(ann)
  go(bob)
  test.equal(state.rooms["room:tavern"], nil)
  ann = come("ann", "tavern")
  test.equal(ann:request("chat.chatHandler.history", {}).messages[1].msg, "bye")
end)

test("a crowd is told its number, once a second", function()
  for i = 1, 200 do come("p" .. i, "tavern") end
  local last = come("last", "tavern")
  test.equal(#last.answer.users, 200)
  test.equal(last.answer.count, 203)
  ann:clear()
  come("one more", "tavern")
  test.equal(ann:pushed("onAdd"), nil)
  test.turn(1100)
  test.equal(ann:pushed("onUsers"), { count = 204 })
end)
