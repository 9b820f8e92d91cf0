# shellcheck shell=bash
# cluster.sh: a Loquat cluster of its own for a group, on free ports, with its data in $work. Its
# configuration stands in build/, since relative paths start at the folder above the file's.

# A run of free ports from here on, one for each that the cluster may need.
free_ports() {
	local try base port taken
	for try in 1 2 3 4 5 6 7 8 9 10; do
		base=$((20000 + (RANDOM + try) % 10000))
		taken=
		for ((port = base; port < base + 60; port++)); do
			(exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && taken=1 && break
		done
		[ -n "$taken" ] || { echo "$base" && return; }
	done
	fail "no 60 free ports in a row from 20000 to 30060"
}

# cluster_config BASE [ID...]: deploy/cluster.lua with other ports and its data elsewhere, without the
# instances named. The file may compute, so it is wrapped, not edited.
cluster_config() {
	local base=$1
	shift
	cat <<-END
		local cluster = (function()
		$(cat deploy/cluster.lua)
		end)()
		local port, kept, without = $base, {}, " $* "
		local function fresh(old)
		  if not old or old == 0 then return old end
		  port = port + 1
		  return port
		end
		for _, row in ipairs(cluster.instances) do
		  if not string.find(without, " " .. row.id .. " ", 1, true) then
		    row.client, row.rpc, row.http = fresh(row.client), fresh(row.rpc), fresh(row.http)
		    kept[#kept + 1] = row
		  end
		end
		cluster.instances = kept
		cluster.paths = cluster.paths or {}
		cluster.paths.var = "$work/var"
		cluster.supervisor = cluster.supervisor or {}
		cluster.supervisor.http = fresh(8000)
		${cluster_more:-}
		return cluster
	END
}

# cluster_start [ID...]: up and ready without the instances named; sets cluster_pid and cluster_file
cluster_start() {
	need build/bin/loquat
	[ -e deploy/cluster.lua ] || fail "deploy/cluster.lua is missing"
	local base
	base=$(free_ports) || exit 2
	cluster_file=build/bench-$$-$group.lua
	cluster_config "$base" "$@" >"$cluster_file"
	build/bin/loquat up --config "$cluster_file" >"$work/up.log" 2>&1 &
	cluster_pid=$!
	started="$started $cluster_pid"
	wait_for 60 "loquat: ready" cluster_ready
}

cluster_ready() {
	grep -qs "loquat: ready" "$work/up.log" && return
	running "$cluster_pid" || fail "loquat up ended: $(tail -1 "$work/up.log")"
	return 1
}

cluster_status() {
	build/bin/loquat status --config "$cluster_file" --json || fail "loquat status failed"
}

# cluster_of ID pid|client|http: the process id, or the port
cluster_of() {
	local row
	row=$(cluster_status | tr -d '\n' | sed 's/}/}\n/g' | grep "\"id\": *\"$1\"") || fail "the cluster has no $1"
	case $2 in
	pid) sed -n 's/.*"pid": *\([0-9]*\).*/\1/p' <<<"$row" ;;
	http) sed -n 's/.*"http": *"[^"]*:\([0-9]*\)".*/\1/p' <<<"$row" ;;
	client) sed -n 's/.*"client": *"[^"]*:\([0-9]*\)".*/\1/p' <<<"$row" ;;
	esac
}

# All of its processes but the database's.
cluster_pids() {
	echo "$cluster_pid"
	cluster_status | grep -o '"pid": *[0-9]*' | grep -o '[0-9]*$'
}
