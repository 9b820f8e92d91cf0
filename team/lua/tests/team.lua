-- Teams: made, joined, led, left.
local players

test.before(function()
  players = {}
  test.fake("role.roleRemote.get", function(args) return { uid = args.uid, name = args.uid:upper() } end)
end)

local function come(uid)
  local session = test.session(uid)
  test.call("team.teamRemote.online", uid,
    { uid = uid, name = uid:upper(), connector = session.connector, sid = session.sid }, { from = "role-1" })
  players[uid] = session
  return session
end

local function ask(session, verb, message) return session:request("team.teamHandler." .. verb, message or {}) end

-- ann leads, the others are members.
local function team_of(...)
  local ann = come("ann")
  local team = test.holds(ask(ann, "create").team)
  for _, uid in ipairs { ... } do
    local session = come(uid)
    test.equal(ask(ann, "invite", { uid = uid }).code, 200)
    test.equal(ask(session, "accept", { team = team.id }).code, 200)
  end
  return ann, team.id
end

local function members(session)
  local names = {}
  for i, member in ipairs(ask(session, "info").team.members) do names[i] = member.uid end
  return names
end

test("who makes a team leads it", function()
  local ann = come("ann")
  local team = ask(ann, "create").team
  test.has(team, { leader = "ann", members = { { uid = "ann", name = "ANN", online = true } } })
  test.has(ann:pushed("onTeam"), { event = "create", team = team.id })
  test.refused(ask(ann, "create"), "denied", "already")
end)

test("who is in no team is told so", function()
  local ann = come("ann")
  test.equal(ask(ann, "info"), { code = 200 })
  for _, verb in ipairs { "leave", "kick", "promote", "invite" } do
    local message = verb == "leave" and {} or { uid = "bob" }
    test.refused(ask(ann, verb, message), "denied", "no team")
  end
end)

test("an invited player hears of it and may come", function()
  local ann, team = team_of()
  local bob = come("bob")
  ask(ann, "invite", { uid = "bob" })
  test.has(bob:pushed("onTeam"), { event = "invite", team = team, from = "ann", name = "ANN" })
  test.equal(#ask(bob, "accept", { team = team }).team.members, 2)
  test.has(ann:pushed("onTeam"), { event = "accept" })
  test.equal(test.calls("chat.chatRemote.place")[2].args.value, tostring(team))
end)

test("who was not invited, or too long ago, does not come in", function()
  local ann, team = team_of()
  local bob = come("bob")
  test.refused(ask(bob, "accept", { team = team }), "denied", "invitation")
  ask(ann, "invite", { uid = "bob" })
  test.turn(61000)
  test.refused(ask(bob, "accept", { team = team }), "denied", "invitation")
  test.refused(ask(bob, "accept", { team = 77 }), "not_found")
end)

test("of what nobody answers a team keeps twenty, for a minute", function()
  local ann, team = team_of()
  for i = 1, 25 do ask(ann, "invite", { uid = "nobody" .. i }) end
  test.refused(ask(ann, "invite", { uid = "nobody21" }), "denied", "too many")
  test.refused(ask(ann, "invite", { uid = "nobody1" }), "not_found")   -- once more
  test.refused(ask(ann, "invite", { uid = ("x"):rep(65) }), "not_found")
  test.turn(61000)
  local bob = come("bob")
  test.equal(ask(ann, "invite", { uid = "bob" }).code, 200)
  local n = 0
  for _ in pairs(state.groups[team].invited) do n = n + 1 end
  test.equal(n, 1)
  test.equal(ask(bob, "accept", { team = team }).code, 200)
end)

test("teams of an instance that started in the same second do not stand in the way", function()
  for i = 1, 40 do
    local id = (app.epoch // 1000000 & 0xffffffff) << 20 | app.worker << 14 | i
    state.groups[id] = { id = id, leader = "x", members = { { uid = "x" } }, invited = {} }
  end
  local _, team = team_of("bob")
  test.holds(team > 0 and team <= 1 << 52)
end)

test("a declined invitation is void", function()
  local ann, team = team_of()
  local bob = come("bob")
  ask(ann, "invite", { uid = "bob" })
  test.equal(ask(bob, "decline", { team = team }).code, 200)
  test.refused(ask(bob, "accept", { team = team }), "denied")
end)

test("only who is online and free can be invited, by the leader", function()
  local ann = team_of("bob")
  test.refused(ask(ann, "invite", { uid = "nobody" }), "not_found", "online")
  test.refused(ask(ann, "invite", { uid = "bob" }), "denied", "in the team")
  test.refused(ask(players.bob, "invite", { uid = "eve" }), "denied", "leader")
  local eve = come("eve")
  ask(eve, "create")
  test.refused(ask(ann, "invite", { uid = "eve" }), "denied", "already")
end)

test("a team has room for five", function()
  local ann = team_of("b", "c", "d", "e")
  come("f")
  test.refused(ask(ann, "invite", { uid = "f" }), "denied", "full")
end)

test("when the leader leaves the next one leads", function()
  local ann = team_of("bob")
  test.equal(ask(ann, "leave").code, 200)
  test.has(players.bob:pushed("onTeam"), { event = "leave" })
  test.equal(ask(players.bob, "info").team.leader, "bob")
  test.equal(ask(ann, "info"), { code = 200 })
end)

test("a team without members is gone", function()
  local ann, team = team_of()
  ask(ann, "leave")
  test.equal(state.groups[team], nil)
end)

test("the leader sends members away and promotes them", function()
  local ann = team_of("bob", "eve")
  test.refused(ask(players.bob, "kick", { uid = "eve" }), "denied", "leader")
  test.refused(ask(ann, "kick", { uid = "ann" }), "denied", "leave")
  test.refused(ask(ann, "kick", { uid = "nobody" }), "not_found")
  ask(ann, "kick", { uid = "eve" })
  test.equal(members(ann), { "ann", "bob" })
  test.has(players.eve:pushed("onTeam"), { event = "kick" })
  test.refused(ask(players.bob, "promote", { uid = "bob" }), "denied", "leader")
  test.refused(ask(ann, "promote", { uid = "eve" }), "not_found")
  test.equal(ask(ann, "promote", { uid = "bob" }).team.leader, "bob")
end)

test("who is gone for good leaves its team", function()
  local ann = team_of("bob")
  test.call("team.teamRemote.online", "bob", { uid = "bob", gone = true }, { from = "role-1" })
  test.equal(members(ann), { "ann" })
end)

test("a new name is seen by the team", function()
  local ann = team_of("bob")
  test.call("team.teamRemote.online", "bob",
    { uid = "bob", name = "Rob", connector = "connector-1", sid = 9 }, { from = "role-1" })
  test.equal(ask(ann, "info").team.members[2].name, "Rob")
end)

test("who is not known to the team service is asked of its role", function()
  local ann = test.session("ann")
  test.equal(ask(ann, "create").team.members[1].name, "ANN")
  test.fake("role.roleRemote.get", function() return nil, "unavailable", "away" end)
  test.refused(ask(test.session("bob"), "create"), "unavailable", "away")
  test.refused(ask(test.session("bob"), "accept", { team = 1 }), "unavailable", "away")
end)

test("what a player was answered is known where it asks next", function()
  local ann, told = come("ann"), 0
  test.fake("team.teamRemote.joined", function()
    clock.sleep(50)
    told = told + 1
    return {}
  end)
  ask(ann, "create")
  test.equal(told, 1)
end)
