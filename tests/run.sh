#!/bin/bash
# run.sh: runs test programs and counts what they say.
#
#   run.sh begin                                forget earlier counts
#   run.sh step NAME COMMAND...                 a step that is no test: shows its output if it fails
#   run.sh run STAGE [-1] [-t SECONDS] PROGRAM...   -1: one after the other, not one per core
#   run.sh sum                                  the last line; exit 1 if anything failed
#
# A program speaks Check's line ("100%: Checks: 7, Failures: 0, Errors: 0"), or lines "ok NAME",
# "not ok NAME", "skip NAME why"; one that says neither counts as one test by its exit status.
# Its output is kept in build/tests/log/STAGE-NAME.log and shown when it fails.
#
# Under CI (the environment's CI is set) a program that failed is given a second try, alone, when its stage is over; not one
# that crashed or that a sanitizer found fault with, and SECOND_TRIES of a whole run at most, for what fails by more than
# chance fails twice. The last line names who needed it: each is a test to mend. The first try's log is kept as NAME.log.first.
set -u
cd "$(dirname "$0")/.." || exit 2
dir=build/tests/log
counts=$dir/counts
unsteady=$dir/unsteady
SECOND_TRIES=2
# Check's own limit of 4 s a test is too tight under a sanitizer or beside other work; a real hang still ends.
export CK_TIMEOUT_MULTIPLIER=${CK_TIMEOUT_MULTIPLIER:-30}

now_ms() { echo $((${EPOCHREALTIME/./} / 1000)); }
seconds() { printf '%d.%02d' $(($1 / 1000)) $(($1 % 1000 / 10)); }
record() { echo "$1 $2 $3" >>"$counts"; }        # passed failed skipped

# count LOG STATUS: prints "passed failed skipped"
count() {
	awk -v status="$2" '
	/^[0-9]+%: Checks: [0-9]+, Failures: [0-9]+, Errors: [0-9]+/ {
		gsub(/[:,]/, ""); said = 1; passed += $3 - $5 - $7; failed += $5 + $7
	}
	/^ok /     { said = 1; passed++ }
	/^not ok / { said = 1; failed++ }
	/^skip /   { said = 1; skipped++ }
	END {
		if (!said && status == 0) passed = 1
		if (status != 0 && failed == 0) failed = 1
		print passed + 0, failed + 0, skipped + 0
	}' "$1"
}

# may_try_again LOG STATUS
may_try_again() {
	[ -n "${CI:-}" ] && [ "$2" -le 124 ] && [ "$(wc -l <"$unsteady")" -lt $SECOND_TRIES ] &&
		! grep -qE '[Rr]eceived signal|ended by signal (4|6|7|8|11) |(Address|Thread|Leak|UndefinedBehavior)Sanitizer|: runtime error: ' "$1"
}

one() {        # one STAGE LIMIT PROGRAM [again]
	local stage=$1 limit=$2 program=$3 again=${4:-} name log status start took passed failed skipped word=ok
	name=$(basename "$program")
	log=$dir/$stage-$name.log
	start=$(now_ms)
	[ "$stage" != soak ] || echo "  begins soak/$name, at most $limit s; its words: tail -f $log"
	CK_LOG_FILE_NAME=$log.checks timeout -k 60 "$limit" "$program" >"$log" 2>&1 </dev/null
	status=$?
	took=$(($(now_ms) - start))
	if [ $status = 124 ]; then
		echo "run.sh: $program stopped after its $limit s; its tests until then:"
		cat "$log.checks" 2>/dev/null
	fi >>"$log"
	rm -f "$log.checks"
	read -r passed failed skipped <<<"$(count "$log" $status)"
	if [ "$failed" != 0 ] && [ -z "$again" ] && may_try_again "$log" $status; then
		word=AGAIN
		mv "$log" "$log.first"
		log=$log.first
		echo "$stage $program" >>"$unsteady"
	else
		[ "$failed" = 0 ] || word=FAILED
		record "$passed" "$failed" "$skipped"
	fi
	{
		printf '  %-6s %-34s %4d passed' "$word" "$stage/$name" "$passed"
		[ "$failed" = 0 ] || printf ', %d failed (exit %d)' "$failed" "$status"
		[ "$skipped" = 0 ] || printf ', %d skipped' "$skipped"
		printf '  %s s\n' "$(seconds $took)"
		[ "$failed" = 0 ] || { tail -n 60 "$log" | sed 's/^/    | /'; echo "    whole log: $log"; }
		grep '^skip ' "$log" | sed 's/^/    /'
	} >"$log.report"
	cat "$log.report"
	rm -f "$log.report"
}

run() {
	local stage=$1 limit=60 cores start programs=0
	cores=$(nproc)
	shift
	while :; do
		case ${1:-} in
		-1) cores=1; shift ;;
		-t) limit=$2; shift 2 ;;
		*) break ;;
		esac
	done
	[ $# -gt 0 ] || return 0
	echo "$stage"
	start=$(now_ms)
	for program; do
		[ "$programs" -lt "$cores" ] || wait -n
		one "$stage" "$limit" "$program" &
		programs=$((programs + 1))
	done
	wait
	while read -r of program; do
		[ "$of" != "$stage" ] || one "$stage" "$limit" "$program" again
	done <"$unsteady"
	echo "  ($stage took $(seconds $(($(now_ms) - start))) s)"
}

step() {
	local name=$1 start log
	shift
	mkdir -p $dir
	log=$dir/step-$name.log
	start=$(now_ms)
	if "$@" >"$log" 2>&1; then
		echo "$name ($(seconds $(($(now_ms) - start))) s)"
	else
		record 0 1 0
		echo "$name FAILED: $*"
		tail -n 60 "$log" | sed 's/^/    | /'
	fi
}

sum() {
	awk -v again="$(awk '{ sub(".*/", "", $2); print $1 "/" $2 }' "$unsteady" | paste -sd ' ')" '
	{ p += $1; f += $2; s += $3 }
	END {
		printf "%d passed, %d failed%s%s\n", p, f, s ? ", " s " skipped" : "", again ? ", on a second try: " again : ""
		exit f > 0 || p == 0
	}' "$counts"
}

case ${1:-} in
begin) mkdir -p $dir && : >$counts && : >$unsteady ;;
step | run) "$@" ;;
sum) sum ;;
*) sed -n '2,16s/^# \{0,1\}//p' "$0"; exit 2 ;;
esac
