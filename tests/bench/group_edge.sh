# shellcheck shell=bash
# edge: what a request costs that goes to the connector, and one that goes on to the scene's Lua,
# beside bare C that does the same hops without logic: closed (500 connections, one request under way each)
# and open (2,000 players, 18 requests a second each, whatever the answers do).

# edge_one NAME ARGUMENTS...: one closed loop; samples NAME_rate and NAME_cpu
edge_one() {
	local name=$1
	shift
	load "$name" --connections 500 --outstanding 1 --warmup 1 --seconds 3 "$@"
	sample "${name}_rate" "$(of "$answer" answers_per_s)"
	sample "${name}_cpu" "$(of "$answer" server_cpu_us)"
}

# edge_open NAME ARGUMENTS...: the open loop; samples NAME_open_cpu and NAME_open_p99
edge_open() {
	local name=$1
	shift
	load "$name, 2,000 x 18 a second" --connections 2000 --rate 18 --warmup 1 --seconds 3 "$@"
	sample "${name}_open_rate" "$(of "$answer" answers_per_s)"
	sample "${name}_open_cpu" "$(of "$answer" server_cpu_us)"
	sample "${name}_open_p99" "$(of "$answer" p99_us)"
}

# edge_limit NAME [open]
edge_limit() {
	start_limit "$1"
	edge_one "$1" --port "$limit_port" --pid "$limit_pids"
	[ -z "${2:-}" ] || edge_open "$1" --port "$limit_port" --pid "$limit_pids"
	stop "$limit_pid"
}

# edge_over RATE NAME PORT PIDS: so many requests a second of each of 2,000 players; sets `answer`. Busy is an answer;
# whatever else is not one counts, but does not end the group.
edge_over() {
	in_time
	answer=$("$PROGRAMS/loadgen" --json --setup 30 --connections 2000 --rate "$1" --busy --warmup 1 --seconds 3 \
		--login --name "$2" --rid "$2-" --alone --port "$3" --pid "$4" \
		--route scene.sceneHandler.echo 2>"$work/line")
	[ -n "$answer" ] || fail "$(tail -1 "$work/line")"
	sed "s/^/  scene, 2,000 x $1 a second, /" "$work/line"
}

# More than this machine can serve is offered: what is served stays what it was, and the rest is told so.
edge_twice() {
	local port=$1 pids=$2 before peak most
	# shellcheck disable=SC2086 # a list
	before=$(edge_peak ${pids//,/ })
	edge_over 27 sat "$port" "$pids"
	most=$(awk -v a="$(of "$answer" answers_per_s)" -v b="$(median scene_open_rate)" 'BEGIN { print (a > b ? a : b) }')
	edge_over 36 twice "$port" "$pids"
	# shellcheck disable=SC2086
	peak=$(edge_peak ${pids//,/ })
	figure twice_the_load "$(of "$answer" answers_per_s)" answers/s "$most" \
		"the most that is served at 36,000/s and at 54,000/s" ">= 0.95"
	figure twice_the_load_refused "$(of "$answer" refused)" requests
	figure twice_the_load_unclear $(($(of "$answer" errors) + $(of "$answer" timeouts) + $(of "$answer" failed))) \
		requests "" "" "<= 0 requests"
	figure twice_the_load_memory $((peak - before)) MiB "" "" "<= 256 MiB"
}

# The most memory that processes had so far, in MiB
edge_peak() {
	local pid
	for pid; do cat "/proc/$pid/status"; done | awk '/^VmHWM/ { kib += $2 } END { print int(kib / 1024) }'
}

# One push to 2,000 members of a connector; program and limit take turns inside.
edge_broadcast() {
	"$PROGRAMS/broadcast" 2000 101 >"$work/broadcast" || fail "broadcast: $(tail -n 1 "$work/broadcast")"
	sed 's/^/  broadcast: /' "$work/broadcast"
	read -r _ _ _ ours _ bare <"$work/broadcast"
	figure broadcast_sends "$(awk "BEGIN { print 1e6 / $ours }")" sends/s "$(awk "BEGIN { print 1e6 / $bare }")" \
		"bare send of the same bytes to the same sockets" ">= 0.85"
}

# edge_tls NAME PORT [login]: one closed loop over TLS; samples NAME_rate
edge_tls() {
	"$PROGRAMS/tls_load" "$2" 500 3 connector.entryHandler.echo ${3:+"$3"} >"$work/tls" 2>&1 ||
		fail "$1: $(tail -n 1 "$work/tls")"
	sed "s/^/  $1: /" "$work/tls"
	sample "$1_rate" "$(awk '{ print $2 }' "$work/tls")"
}

# The connector's echo behind TLS, beside a bare one of OpenSSL, with one certificate.
edge_tls_group() {
	local round port cert=$work/players.pem key=$work/players.key
	"$PROGRAMS/tls_load" certs "$work" || fail "no certificates for the TLS benchmark"
	cluster_more="cluster.client = { tls = { cert = \"$cert\", key = \"$key\" } }" cluster_start connector-2 scene-2
	port=$(cluster_of connector-1 client)
	for ((round = 0; round < ROUNDS; round++)); do
		start_limit tls_echo "$cert" "$key"
		edge_tls tls_limit "$limit_port"
		stop "$limit_pid"
		edge_tls tls_connector "$port" login
	done
	figure tls_echo_closed "$(median tls_connector_rate)" answers/s "$(median tls_limit_rate)" \
		"a bare echo of OpenSSL that speaks the protocol" ">= 0.70"
	stop "$cluster_pid"
}

group_edge() {
	local round port connector scene ours bare
	need "$PROGRAMS/broadcast" "$PROGRAMS/echo_epoll" "$PROGRAMS/echo_relay" "$PROGRAMS/loadgen" \
		"$PROGRAMS/tls_echo" "$PROGRAMS/tls_load"
	# One connector and one scene: the same processes on the way as in the limits.
	cluster_start connector-2 scene-2
	port=$(cluster_of connector-1 client)
	connector=$(cluster_of connector-1 pid)
	scene=$(cluster_of scene-1 pid)
	for ((round = 0; round < ROUNDS; round++)); do
		edge_limit echo_epoll
		edge_one connector --port "$port" --login --route connector.entryHandler.echo --pid "$connector"
		edge_limit echo_relay open
		edge_one scene --port "$port" --login --route scene.sceneHandler.echo --pid "$connector,$scene"
		edge_open scene --port "$port" --login --name open --rid open- --alone --route scene.sceneHandler.echo \
			--pid "$connector,$scene"
	done
	figure connector_echo_closed "$(median connector_rate)" answers/s \
		"$(median echo_epoll_rate)" "a bare epoll echo that speaks the protocol" ">= 0.75"
	figure scene_echo_closed "$(median scene_rate)" answers/s \
		"$(median echo_relay_rate)" "a bare C relay with the same two hops" ">= 0.60"
	figure relay_cpu_us "$(median echo_relay_cpu)" us/answer \
		"$(median echo_epoll_cpu)" "the bare epoll echo, one hop" "<= 1.2"
	figure connector_echo_cpu_us "$(median connector_cpu)" us/answer
	figure scene_closed_cpu_us "$(median scene_cpu)" us/answer
	figure scene_echo_cpu_us "$(median scene_open_cpu)" us/answer \
		"$(median echo_relay_open_cpu)" "the relay, 2,000 x 18/s" "<= 1.6"
	figure scene_echo_p99 "$(median scene_open_p99)" us \
		"$(median echo_relay_open_p99)" "the relay, 2,000 x 18/s" "<= 2.0"
	edge_twice "$port" "$connector,$scene"
	stop "$cluster_pid"
	edge_tls_group
	edge_broadcast
	CROWD_HOLD_S=12 crowd 1
	figure idle_session_bytes "$(median idle_bytes)" bytes "" "" "<= 2048 bytes"
	figure idle_kernel_bytes "$(median idle_kernel)" bytes
}
