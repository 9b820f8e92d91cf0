-- The cluster: which instances there are, where they listen, and every limit.
-- This file is Lua, so it may compute; it is checked at start, and an unknown key, a wrong type or a missing
-- value is one line that names it. `build/bin/SERVICE --help` lists every key with its default.
-- Relative paths start at the folder above this one.
local host = "127.0.0.1"

return {
	cluster = "loquat",

	instances = {
		{ id = "gate-1", service = "gate", host = host, client = 3014, rpc = 4014, http = 8014 },
		{ id = "connector-1", service = "connector", host = host, client = 3050, rpc = 4050, http = 8050 },
		{ id = "connector-2", service = "connector", host = host, client = 3051, rpc = 4051, http = 8051 },
		{ id = "connector-3", service = "connector", host = host, client = 3052, rpc = 4052, http = 8052, start = false },
		{ id = "scene-1", service = "scene", host = host, rpc = 4100, http = 8100 },
		{ id = "scene-2", service = "scene", host = host, rpc = 4101, http = 8101 },
		{ id = "role-1", service = "role", host = host, rpc = 4200, http = 8200 },
		{ id = "team-1", service = "team", host = host, rpc = 4300, http = 8300 },
		{ id = "chat-1", service = "chat", host = host, rpc = 4400, http = 8400 },
		{ id = "platform-1", service = "platform", host = host, rpc = 4500, http = 8500 },
		{ id = "dbwriter-1", service = "dbwriter", host = host, rpc = 4600, http = 8600 },
	},

	supervisor = { host = host, http = 8000 },
	paths = { var = "var" },

	gate = { players_max = 10000, admit_per_s = 0 },
	connector = { guests = true, heartbeat_s = 10, request_s = 5 },
	session = { grace_s = 30 },
	scene = { view_max = 32 },
}
