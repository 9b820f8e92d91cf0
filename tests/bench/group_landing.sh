# shellcheck shell=bash
# landing: what it costs a worker to hand a change to the SQL log.

group_landing() {
	local round answer
	need "$PROGRAMS/append"
	for ((round = 0; round < ROUNDS; round++)); do
		in_time
		answer=$("$PROGRAMS/append" --folder "$work/append.$round" 2>"$work/line") || fail "$(tail -1 "$work/line")"
		echo "  $answer"
		sample append "$(of "$answer" append_ns)"
		sample write "$(of "$answer" write_ns)"
		rm -rf "$work/append.$round"
	done
	figure append_ns "$(median append)" ns "$(median write)" "write() of the same record" "< 1000 ns"
}
