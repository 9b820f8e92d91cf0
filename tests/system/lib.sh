# shellcheck shell=bash
# lib.sh: what the system tests in shell share. A test sources it, starts what it needs with a configuration and a
# folder of its own on free ports, and says "ok SENTENCE" or "not ok SENTENCE" per promise.
#
# Conditions are waited for, never times. Whatever was started is ended with the test, by its process id; and by the kernel,
# should the test itself be killed.
set -u
cd "$(dirname "${BASH_SOURCE[0]}")/../.." || exit 2
work=$(mktemp -d /tmp/lq.XXXXXX)       # short: a unix socket's path has at most 107 bytes
config=$work/deploy/cluster.lua
mkdir "$work/deploy"
export LOQUAT_HOME=$PWD                # Lua, messages and schema are this tree's unless $work has its own
started=()
stopped=()
failures=0
readonly times_as_long=4                # a machine that has much else to do takes so many times as long

at_end() {
	local pid
	[ ${#stopped[@]} = 0 ] || kill -CONT "${stopped[@]}" 2>/dev/null
	for pid in "${started[@]}"; do
		kill -TERM "$pid" 2>/dev/null
	done
	for pid in "${started[@]}"; do
		wait_until 10 gone "$pid" || kill -KILL "$pid" 2>/dev/null
	done
	[ "$failures" = 0 ] || tail -n 40 "$work"/*.log 2>/dev/null
	[ ! -f "$work/ports" ] || xargs rm -f <"$work/ports"
	rm -rf "$work"
	[ "$failures" = 0 ]
}
trap 'at_end || exit 1' EXIT

ok() { echo "ok $1"; }
not_ok() {
	echo "not ok $1${2:+: $2}"
	failures=$((failures + 1))
}
is() {        # is SENTENCE EXPECTED FOUND
	if [ "$2" = "$3" ]; then ok "$1"; else not_ok "$1" "expected '$2', found '$3'"; fi
}
holds() {     # holds SENTENCE FILE TEXT
	if grep -qF -- "$3" "$2"; then ok "$1"; else not_ok "$1" "'$3' is not in: $(tail -n 5 "$2")"; fi
}

gone() { ! kill -0 "$1" 2>/dev/null || [ "$(sed 's/.*) //;s/ .*//' "/proc/$1/stat" 2>/dev/null)" = Z ]; }

wait_until() { # wait_until SECONDS COMMAND...: seconds of a machine that has nothing else to do
	local deadline=$((SECONDS + times_as_long * $1))
	shift
	until "$@"; do
		[ $SECONDS -lt "$deadline" ] || return 1
		read -rt 0.05 <> <(:) || true
	done
}
wait_for() {   # wait_for SECONDS WHAT COMMAND...: without it the test cannot go on
	local seconds=$1 what=$2
	shift 2
	wait_until "$seconds" "$@" && return
	not_ok "$what" "not within $((times_as_long * seconds)) s"
	exit 1
}

# 40 ports in a row that nobody has, below the range the kernel gives to outgoing connections. They are this test's until
# it ends: a file with its process id keeps other tests on this machine away, also before anything listens there.
free_ports() {
	local base port mark owner
	for _ in {1..200}; do
		base=$((12000 + RANDOM % 450 * 40))
		mark=/tmp/loquat-ports-$base
		if ! (set -o noclobber && echo $$ >"$mark") 2>/dev/null; then
			owner=$(cat "$mark" 2>/dev/null) # none: it is being written
			[ -z "$owner" ] || kill -0 "$owner" 2>/dev/null || rm -f "$mark"
			continue
		fi
		echo "$mark" >>"$work/ports"
		for ((port = base; port < base + 40; port++)); do
			(exec 3<>"/dev/tcp/127.0.0.1/$port") 2>/dev/null && continue 2
		done
		echo "$base"
		return
	done
	echo "lib.sh: no 40 free ports in a row" >&2
	exit 1
}

tied=(setpriv --pdeathsig TERM)        # before a command: it ends with the test, also with one that was killed
start() {      # start COMMAND...: in the background, its words in $work/start.log; sets pid
	[ "$1" != loquat ] || set -- build/bin/"$@" --config "$config"
	"${tied[@]}" "$@" >>"$work/start.log" 2>&1 &
	pid=$!
	started+=("$pid")
}

test_lives() { kill -0 $$; }           # what a function in the background goes on for

stop_process() { # stop_process PID: SIGSTOP. Each thread stops for itself, when it gets a processor: until then it may answer.
	stopped+=("$1")
	kill -STOP "$1"
	wait_for 10 "process $1 stops" all_threads_stand "$1"
}
all_threads_stand() { ! sed 's/.*) //' /proc/"$1"/task/*/stat | grep -qv '^T'; }

# write_config [LUA]: deploy/cluster.lua on other ports, its data in $work/var; LUA may change `cluster` further.
write_config() {
	base=$(free_ports)
	cat >"$config" <<-END
		local cluster = (function()
		$(cat deploy/cluster.lua)
		end)()
		local port = $base
		local function fresh(old)
		  if not old then return nil end
		  port = port + 1
		  return port
		end
		for _, row in ipairs(cluster.instances) do
		  row.client, row.rpc, row.http = fresh(row.client), fresh(row.rpc), fresh(row.http)
		end
		cluster.supervisor.http = $base
		${1:-}
		return cluster
	END
}

loquat() { build/bin/loquat "$@" --config "$config"; }
says_ready() { grep -q '^loquat: ready' "$work/up.log" 2>/dev/null; }
up() {         # the cluster of $config, until it is ready; sets up_pid
	: >"$work/up.log"              # an earlier start was ready, too
	"${tied[@]}" build/bin/loquat up --config "$config" >"$work/up.log" 2>&1 &
	up_pid=$!
	started+=("$up_pid")
	wait_until 60 ready_or_gone
	says_ready && return
	not_ok "the cluster comes up" "$(tail -n 3 "$work/up.log")"
	exit 1
}
ready_or_gone() { says_ready || gone "$up_pid"; }

field() {      # field ID NAME: of that instance in `loquat status`
	loquat status --json | tr -d '\n' | sed 's/}/}\n/g' | grep "\"id\": \"$1\"" | sed -n "s/.*\"$2\": \"\{0,1\}\([^\", }]*\).*/\1/p"
}
is_in_state() { [ "$(field "$1" state)" = "$2" ]; }
children_of() { cat /proc/"$1"/task/*/children 2>/dev/null; }
database_of() { # its server's process
	local child
	for child in $(children_of "$1"); do
		[ "$(cat "/proc/$child/comm" 2>/dev/null)" = mariadbd ] && echo "$child" && return
	done
	return 1
}
is_other_pid() { local now; now=$(field "$1" pid) && [ -n "$now" ] && [ "$now" != null ] && [ "$now" != "$2" ]; }

http() {       # http PORT METHOD PATH [BODY [HEADER]]: the whole answer; fails where nobody listens
	local body=${4:-}
	exec 4<>"/dev/tcp/127.0.0.1/$1" || return
	printf '%s %s HTTP/1.0\r\nConnection: close\r\nContent-Length: %s\r\n%s\r\n%s' "$2" "$3" ${#body} "${5:+$5$'\r\n'}" "$body" >&4
	tr -d '\r' <&4
	exec 4>&-
} 2>/dev/null
http_status() { # as http: its status alone
	local answer
	answer=$(http "$@") && sed -n '1s/[^ ]* \([0-9]*\).*/\1/p' <<<"$answer"
}
http_ok() { [ "$(http_status "$1" GET "$2")" = 200 ]; } # http_ok PORT PATH
http_body() { http "$1" GET "$2" | sed '1,/^$/d'; }     # http_body PORT PATH: what a GET answers
http_port() { field "$1" http | sed 's/.*://'; }        # http_port ID

lag() {        # records of all logs that are not in the database yet, as the dashboard's /stats says
	http_body "$base" /stats | tr -d ' \n' | sed -n 's/.*"lag_records":\([0-9]*\).*/\1/p'
}
lag_is_zero() { # lag_is_zero [ID]: of the logs and tables themselves; the figure above is of when dbwriter last looked
	build/bin/dbwriter --status --config "$config" 2>/dev/null |
		awk -v id="${1:-}" 'NR > 1 && NF == 4 && (!id || $1 == id) { seen = 1; behind += $4 } END { exit !seen || behind > 0 }'
}

# bots_failures FILE: why players of `loquat bots --json` failed, if it is not that they kept under their rate: this machine has
# others to serve.
bots_failures() {
	grep -q '"reasons":{' "$1" || echo "no report"
	grep -o '"mismatch":"[^"]*"\|"reasons":{.*' "$1" | grep -o '"[^"]*":["0-9].*' | tr , '\n' | grep -v 'kept under 95 % of its rate'
}

answered_purchases() { # what each player's answers say: role, gold, potions
	awk '/^buyer/ { gold[$1] = $3; n[$1]++ } END { for (who in n) print who, gold[who], n[who] }' "$work/answers" | sort
}
landed_purchases() {   # and what the tables say
	loquat sql -e "SELECT uid, gold, count FROM role JOIN bag ON role_id = id AND item = 1 WHERE uid LIKE 'buyer%'" | tr '\t' ' ' | sort
}

# Ends the cluster with the signal and waits for it and its children: `up` may follow.
down() {
	local child children
	children=$(children_of "$up_pid")
	kill "-$1" "$up_pid"
	wait_for 60 "the cluster ends" gone "$up_pid"
	wait "$up_pid" 2>/dev/null
	for child in $children; do
		wait_for 10 "nothing of it is left" gone "$child"
	done
}
