# shellcheck shell=bash
# lib.sh: what the groups of tests/bench/run share: rounds, limits, load, figures.
#
# A group takes samples over some rounds (`sample NAME VALUE`), then says its figures from the medians
# (`figure NAME VALUE UNIT LIMIT LIMIT_NAME GOAL`). What it needs and has not got, it names by `fail`.

GROUP_S=240         # what a group may take
REPEAT_S=130        # and until when it may repeat what was disturbed
ROUNDS=3
PROGRAMS=build/tests/bench

bench_begin() {
	work=$(mktemp -d "${TMPDIR:-/tmp}/bench.XXXXXX") || exit 2
	trap 'rm -rf "$work" build/bench-$$-*.lua' EXIT
	: >"$work/samples"
	: >"$work/figures"
	mkdir -p build
}

# ---- a group's life -----------------------------------------------------------------------------

# Whatever way the group ends, what it has started ends with it.
run_group() {
	started=
	disturbed=0
	SECONDS=0
	trap 'stop_all' EXIT
	trap 'exit 2' INT TERM
	"group_$1"
	[ "$disturbed" = 0 ] || echo "bench: $1: $disturbed of its runs shared the machine with other work"
}

fail() {
	echo "bench: $group: $*" >&2
	exit 2
}

in_time() {
	[ "$SECONDS" -lt "$GROUP_S" ] || fail "takes longer than $GROUP_S s on this machine; nothing is reported"
}

need() {
	for file; do
		[ -x "$file" ] || fail "$file is missing; make bench builds it, or says why not"
	done
}

# Only a child that still runs: a number may have gone to another process since.
running() {
	[[ " $(jobs -pr | tr '\n' ' ')" == *" $1 "* ]]
}

# stop PID: asks a child to end and waits for it; after 15 s it is killed.
stop() {
	local end=$((SECONDS + 15))
	running "$1" && kill "$1"
	while running "$1"; do
		[ "$SECONDS" -lt "$end" ] || kill -9 "$1"
		sleep 0.05
	done 2>/dev/null
	started=${started/ $1/}
}

stop_all() {
	local pid
	for pid in $started; do stop "$pid"; done
}

# wait_for SECONDS WHAT COMMAND...: until the command succeeds
wait_for() {
	local end=$((SECONDS + $1)) what=$2
	shift 2
	until "$@"; do
		[ "$SECONDS" -lt "$end" ] || fail "waited in vain for $what"
		sleep 0.1
	done
}

# ---- load -----------------------------------------------------------------------------------------

# start_limit PROGRAM [ARGUMENTS...]: an echo server; sets limit_pid, limit_port and limit_pids
start_limit() {
	rm -f "$work/limit"
	"$PROGRAMS/$1" "${@:2}" >"$work/limit" &
	limit_pid=$!
	started="$started $limit_pid"
	wait_for 10 "$1 to listen" test -s "$work/limit"
	read -r _ limit_port _ limit_pids <"$work/limit"
}

# load LABEL ARGUMENTS...: sets `answer` to the generator's JSON; its line for people is printed
#
# A run that other work on this machine has disturbed is thrown away, twice at most.
load() {
	local again label=$1
	shift
	for again in 1 2 0; do
		in_time
		answer=$("$PROGRAMS/loadgen" --json --setup 30 "$@" 2>"$work/line") || fail "$(tail -1 "$work/line")"
		sed "s/^/  $label, /" "$work/line"
		quiet "$(of "$answer" other_cores)" && return
		[ "$again" != 0 ] && [ "$SECONDS" -lt "$REPEAT_S" ] || break
		echo "  again: other work on this machine disturbed that one"
	done
	disturbed=$((disturbed + 1))
}

quiet() {
	awk -v cores="$1" 'BEGIN { exit cores > 0.15 }'
}

# one PROGRAM ARGUMENTS...: sets `answer` to its JSON
one() {
	local program=$1
	shift
	in_time
	answer=$("$PROGRAMS/$program" "$@" 2>"$work/line") || fail "$(tail -1 "$work/line")"
	echo "  $program: $answer"
}

# samples KEY...: of the answer, under the name PROGRAM_KEY
samples() {
	local program=$1 key
	shift
	for key; do sample "${program}_$key" "$(of "$answer" "$key")"; done
}

# of JSON KEY: the number there
of() {
	sed -n 's/.*"'"$2"'":\([-0-9.]*\).*/\1/p' <<<"$1"
}

# CPU seconds so far of processes with all their threads
cpu_s() {
	local pid
	for pid; do cat "/proc/$pid/stat" 2>/dev/null; done |
		awk -v hz="$(getconf CLK_TCK)" '{ sub(/.*\) /, ""); ticks += $12 + $13 } END { print ticks / hz }'
}

# ---- figures --------------------------------------------------------------------------------------

sample() {
	printf '%s\t%s\t%s\n' "$group" "$1" "$2" >>"$work/samples"
}

median() {
	awk -F'\t' -v group="$group" -v name="$1" '$1 == group && $2 == name { print $3 }' "$work/samples" | sort -g |
		awk '{ v[NR] = $1 } END { print NR % 2 ? v[(NR + 1) / 2] : (v[NR / 2] + v[NR / 2 + 1]) / 2 }'
}

# figure NAME VALUE UNIT [LIMIT LIMIT_NAME GOAL]
#
# GOAL is "OPERATOR NUMBER" for the ratio value / limit, "OPERATOR NUMBER UNIT" for the value, or "OPERATOR limit + NUMBER
# UNIT" for value - limit. A figure that is only reported has no goal.
figure() {
	awk -v OFS='\t' -v group="$group" -v name="$1" -v value="$2" -v unit="$3" -v limit="${4:-}" \
		-v limit_name="${5:-}" -v goal="${6:-}" 'BEGIN {
		ratio = limit == "" ? "" : value / limit
		ok = ""
		if (split(goal, part, " ") >= 2) {
			number = part[3] == "" ? ratio : value
			bound = part[2]
			if (bound == "limit") {
				number = value - limit
				bound = part[4]
			}
			gsub(/,/, "", bound)
			bound += 0
			ok = "false"
			if ((part[1] == ">=" && number >= bound) || (part[1] == "<=" && number <= bound) ||
			    (part[1] == "<" && number < bound) || (part[1] == ">" && number > bound))
				ok = "true"
		}
		print group, name, value, unit, limit, limit_name, ratio, goal, ok
	}' >>"$work/figures"
}

bench_json() {
	awk -F'\t' '
	function text(s) { return s == "" ? "null" : "\"" s "\"" }
	function number(s) { return s == "" ? "null" : sprintf("%.6f", s) + 0 }
	BEGIN { CONVFMT = "%.10g"; printf "[" }
	{
		printf "%s\n  {\"group\":%s,\"name\":%s,\"value\":%s,\"unit\":%s,", (NR > 1 ? "," : ""), \
			text($1), text($2), number($3), text($4)
		printf "\"limit\":%s,\"limit_name\":%s,\"ratio\":%s,\"goal\":%s,\"ok\":%s}", number($5), text($6), \
			number($7), text($8), ($9 == "" ? "null" : $9)
	}
	END { print "\n]" }' "$work/figures"
}

bench_table() {
	echo
	awk -F'\t' '
	function number(s) { return s == "" ? "" : sprintf((s >= 1000 ? "%.0f" : "%.4g"), s) }
	BEGIN {
		form = "%-2s %-8s %-28s %12s %-18s %12s %-44s %7s  %s\n"
		printf form, "", "group", "figure", "value", "", "limit", "", "ratio", "goal"
	}
	{
		mark = $9 == "true" ? "ok" : ($9 == "false" ? "NO" : "")
		printf form, mark, $1, $2, number($3), $4, number($5), $6, number($7), $8
	}' "$work/figures"
	echo
	echo "bench: written to build/bench.json"
}

# The last word, and the exit status.
bench_goals() {
	awk -F'\t' '
	$9 != "" { goals++ }
	$9 == "false" { missed = missed " " $2; n++ }
	END {
		if (n) print "bench: " n " of " goals " goals missed:" missed
		else print "bench: " goals + 0 " goals, all reached"
		exit n > 0
	}' "$work/figures"
}
