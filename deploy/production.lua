-- A profile with the strict values, for players on the open internet. Copy it, put your addresses in, and start with
--   build/bin/loquat up --config deploy/production.lua
-- Inner ports stay on `inner`, an address that players cannot reach; players come to `outer`. The cluster key
-- (var/keys/cluster.key) must be the same on every host.
local inner = env("LOQUAT_INNER") or "127.0.0.1"
local outer = env("LOQUAT_OUTER") or "127.0.0.1"

return {
	cluster = "production",

	instances = {
		{ id = "gate-1", service = "gate", host = inner, rpc = 4014, http = 8014,
			client_host = outer, client = 3014 },
		{ id = "connector-1", service = "connector", host = inner, rpc = 4050, http = 8050,
			client_host = outer, client = 3050 },
		{ id = "connector-2", service = "connector", host = inner, rpc = 4051, http = 8051,
			client_host = outer, client = 3051 },
		{ id = "scene-1", service = "scene", host = inner, rpc = 4100, http = 8100 },
		{ id = "scene-2", service = "scene", host = inner, rpc = 4101, http = 8101 },
		{ id = "role-1", service = "role", host = inner, rpc = 4200, http = 8200 },
		{ id = "team-1", service = "team", host = inner, rpc = 4300, http = 8300 },
		{ id = "chat-1", service = "chat", host = inner, rpc = 4400, http = 8400 },
		{ id = "platform-1", service = "platform", host = inner, rpc = 4500, http = 8500 },
		{ id = "dbwriter-1", service = "dbwriter", host = inner, rpc = 4600, http = 8600 },
	},

	supervisor = { host = inner, http = 8000 },
	paths = { var = "var" },
	-- on several hosts: discovery = { kind = "etcd", endpoints = { "http://10.0.0.1:2379" } }, see docs/operations.md

	-- a login storm is let in slowly; who is too many stands in the queue
	gate = {
		players_max = 5000, admit_per_s = 200, packets_per_s = 20,
		per_address_max = 100, per_subnet_max = 1000, connects_per_s = 50, address_packets_per_s = 100,
		-- where every player has an account: guests = false
	},
	-- three times what a player in battle sends; a token of the gate is needed; some sixty players behind one address
	connector = {
		guests = false, tell_failures = false, packets_per_s = 60, bytes_per_s = 65536, heartbeat_s = 10, request_s = 5,
		per_address_max = 100, per_subnet_max = 1000, connects_per_s = 50, address_packets_per_s = 1200,
	},
	session = { grace_s = 60 },
	chat = { per_s = 1 },
	-- between hosts also: tls = { cert = "tls/node.pem", key = "tls/node.key", ca = "tls/ca.pem" }, see docs/operations.md
	rpc = { drain_s = 30 },
	scene = { view_max = 32 },
	lua = { memory_bytes_max = 512 * 1024 * 1024, budget_ms = 100 },
}
