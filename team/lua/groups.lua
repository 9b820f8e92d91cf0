-- The teams this worker owns: state.groups[id] = { id, leader (uid), members (list of {uid, name, online}), invited }.
local Groups = {}

state.groups = state.groups or {}

local SIZE_MAX = 5
local INVITE_MS = 60000
local INVITED_MAX = 20   -- at once: whose names they are, nobody knows

local function find(group, uid)
  for i, member in ipairs(group.members) do
    if member.uid == uid then return i, member end
  end
end

function Groups.show(group)
  local members = {}
  for i, member in ipairs(group.members) do
    members[i] = { uid = member.uid, name = member.name, online = member.online }
  end
  return { id = group.id, leader = group.leader, members = members }
end

-- Tells every member's owner, which pushes onTeam to the player. The owner of the one who asked is waited for: its next
-- request must find what this one was answered, and the answer goes another way than this. Yields.
local function tell(group, event, asker, also)
  local info, own = Groups.show(group), nil
  local function joined(args)
    if args.uid == asker then own = args else app.send.team.teamRemote.joined(args.uid, args) end
  end
  for _, member in ipairs(group.members) do
    joined({ uid = member.uid, team = group.id, info = info, event = event })
  end
  if also then joined({ uid = also, event = event }) end
  if own then app.rpc.team.teamRemote.joined(asker, own) end
end

local function remove(group, uid, event, asker)
  table.remove(group.members, (find(group, uid)))
  if group.leader == uid and group.members[1] then group.leader = group.members[1].uid end
  if #group.members == 0 then state.groups[group.id] = nil end
  tell(group, event, asker, uid)
end

-- How many invitations wait for their answer.
local function invited(group)
  local now, n = clock.now_ms(), 0
  for uid, until_ms in pairs(group.invited) do
    if until_ms < now then group.invited[uid] = nil else n = n + 1 end
  end
  return n
end

local Verbs = {}

function Verbs.create(there, args)
  if there then return nil, "busy", "this number is another team's" end
  local group = {
    id = args.team, leader = args.uid, members = { { uid = args.uid, name = args.name, online = true } }, invited = {},
  }
  state.groups[args.team] = group
  tell(group, "create", args.uid)
  return group
end

function Verbs.invite(group, args)
  if group.leader ~= args.uid then return nil, "denied", "only the leader invites" end
  if #group.members >= SIZE_MAX then return nil, "denied", "the team is full" end
  if find(group, args.target) then return nil, "denied", "this player is in the team" end
  if invited(group) >= INVITED_MAX and not group.invited[args.target] then
    return nil, "denied", "too many invitations wait for an answer"
  end
  group.invited[args.target] = clock.now_ms() + INVITE_MS
  return group
end

function Verbs.accept(group, args)
  local until_ms = group.invited[args.uid]
  if not until_ms or until_ms < clock.now_ms() then return nil, "denied", "there is no invitation" end
  if #group.members >= SIZE_MAX then return nil, "denied", "the team is full" end
  group.invited[args.uid] = nil
  group.members[#group.members + 1] = { uid = args.uid, name = args.name, online = true }
  tell(group, "accept", args.uid)
  return group
end

function Verbs.decline(group, args)
  group.invited[args.uid] = nil
  return group
end

function Verbs.leave(group, args)
  if not find(group, args.uid) then return nil, "denied", "you are not in this team" end
  remove(group, args.uid, "leave", args.uid)
  return group
end

function Verbs.kick(group, args)
  if group.leader ~= args.uid then return nil, "denied", "only the leader sends members away" end
  if args.target == args.uid then return nil, "denied", "leave instead" end
  if not find(group, args.target) then return nil, "not_found", "uid: this player is not in the team" end
  remove(group, args.target, "kick", args.uid)
  return group
end

function Verbs.promote(group, args)
  if group.leader ~= args.uid then return nil, "denied", "only the leader promotes" end
  if not find(group, args.target) then return nil, "not_found", "uid: this player is not in the team" end
  group.leader = args.target
  tell(group, "promote", args.uid)
  return group
end

function Verbs.online(group, args)
  local _, member = find(group, args.uid)
  if member then
    member.online = args.online
    member.name = args.name or member.name
    tell(group, "online")
  end
  return group
end

function Verbs.info(group)
  return group
end

-- One change of one team: its answer, or nil, error, message.
function Groups.change(args)
  local verb, group = Verbs[args.verb], state.groups[args.team]
  if not verb then return nil, "bad_request", "verb: " .. args.verb end
  if not group and args.verb ~= "create" then return nil, "not_found", "the team does not exist any more" end
  local err, why
  group, err, why = verb(group, args)
  if not group then return nil, err, why end
  return { team = Groups.show(group) }
end

return Groups
