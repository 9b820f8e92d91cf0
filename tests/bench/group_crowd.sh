# shellcheck shell=bash
# crowd: what a logged-in connection costs that says nothing: five connectors side by side with as many as
# the hard limit of descriptors allows (18,000 each), held over more than two heartbeats.

CROWD_CONNECTORS=${CROWD_CONNECTORS:-5}
CROWD_HOLD_S=${CROWD_HOLD_S:-25} # two heartbeats of 10 s and some

# Private memory of processes in KiB
crowd_private() {
	local pid
	for pid; do cat "/proc/$pid/status"; done | awk '/^RssAnon/ { kib += $2 } END { print kib }'
}

# What the kernel holds in sockets and their bookkeeping, both ends, in KiB
crowd_kernel() {
	awk '/^SUnreclaim/ { kib += $2 } /^TCP:/ { kib += 4 * $NF } END { print kib }' /proc/meminfo /proc/net/sockstat
}

# CROWD_EACH, or how many fit: 2,000 descriptors of the hard limit stay for everything else.
crowd_size() {
	local hard
	[ -n "${CROWD_EACH:-}" ] && echo "$CROWD_EACH" && return
	hard=$(ulimit -Hn)
	[ "$hard" != unlimited ] && [ "$hard" -lt 20000 ] && echo $((hard - 2000)) && return
	echo 18000
}

crowd_stands() {
	local port pid n=0
	for pid in $crowd_loads; do
		n=$((n + 1))
		running "$pid" || fail "connections were lost: $(tail -n 1 "$work/crowd-$n.line")"
	done
	for port; do
		[ "$(ss -Htn state established "sport = :$port" | wc -l)" -ge "$crowd_each" ] || return 1
	done
	# and logged in: those who load say so by their first requests
	[ "$(crowd_sessions)" -ge $((crowd_each * $#)) ]
}

crowd_sessions() {
	local n=0 id
	for id in $crowd_ids; do
		n=$((n + $(crowd_stat "$id")))
	done
	echo "$n"
}

# crowd_stat ID: players logged in there
crowd_stat() {
	local http
	http=$(cluster_of "$1" http)
	{ exec 4<>"/dev/tcp/127.0.0.1/$http" && printf 'GET /stats HTTP/1.0\r\n\r\n' >&4 && cat <&4; } 2>/dev/null |
		sed -n 's/.*"sessions":\([0-9]*\).*/\1/p' | head -n 1
}

# crowd CONNECTORS: samples idle_bytes and idle_kernel; every connection must live to the end
crowd() {
	local id port pid pids='' ports='' private kernel n
	cluster_more='cluster.gate.players_max = 1000000
		for i = 3, '"$1"' do
		  port = port + 3
		  cluster.instances[#cluster.instances + 1] = { id = "connector-" .. i, service = "connector",
		    host = "127.0.0.1", client = port - 2, rpc = port - 1, http = port }
		end'
	crowd_ids=$(for ((n = 1; n <= $1; n++)); do echo "connector-$n"; done)
	if [ "$1" = 1 ]; then cluster_start connector-2 connector-3 scene-2; else cluster_start connector-3 scene-2; fi
	cluster_more=
	crowd_each=$(crowd_size)
	for id in $crowd_ids; do
		pids="$pids $(cluster_of "$id" pid)"
		ports="$ports $(cluster_of "$id" client)"
	done
	# shellcheck disable=SC2086 # lists
	private=$(crowd_private $pids)
	kernel=$(crowd_kernel)
	n=0
	crowd_loads=
	for port in $ports; do
		n=$((n + 1))
		"$PROGRAMS/loadgen" --json --port "$port" --connections "$crowd_each" --login --name "idle$n-" --rid "idle$n-" --alone \
			--rate 0.002 --warmup 0 --seconds $((CROWD_HOLD_S * 2)) --ramp $((400 / $1)) --setup 200 \
			>"$work/crowd-$n" 2>"$work/crowd-$n.line" &
		crowd_loads="$crowd_loads $!"
		started="$started $!"
	done
	# shellcheck disable=SC2086
	wait_for 200 "$crowd_each idle connections at each of $1 connectors" crowd_stands $ports
	sleep "$CROWD_HOLD_S"
	# shellcheck disable=SC2086
	private=$(($(crowd_private $pids) - private))
	kernel=$(($(crowd_kernel) - kernel))
	n=0
	for pid in $crowd_loads; do
		n=$((n + 1))
		wait "$pid" || fail "connections were lost: $(tail -n 1 "$work/crowd-$n.line")"
	done
	n=$((crowd_each * $1))
	sample idle_bytes $((private * 1024 / n))
	sample idle_kernel $((kernel * 1024 / n))
	echo "  $n idle connections on $1 connectors: $((private * 1024 / n)) bytes each in user space, $((kernel * 1024 / n))" \
		"in the kernel for both ends; all kept over $((CROWD_HOLD_S * 2)) s of heartbeats"
	stop "$cluster_pid"
}

group_crowd() {
	need "$PROGRAMS/loadgen"
	crowd "$CROWD_CONNECTORS"
	figure crowd_session_bytes "$(median idle_bytes)" bytes "" "" "<= 2048 bytes"
	figure crowd_kernel_bytes "$(median idle_kernel)" bytes
}
