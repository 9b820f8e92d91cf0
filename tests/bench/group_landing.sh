# shellcheck shell=bash
# landing: what it costs a worker to hand a change to the SQL log, and how fast the logs land in the database.

group_landing() {
	local round answer
	need "$PROGRAMS/append" "$PROGRAMS/replay"
	for ((round = 0; round < ROUNDS; round++)); do
		in_time
		answer=$("$PROGRAMS/append" --folder "$work/append.$round" 2>"$work/line") || fail "$(tail -1 "$work/line")"
		echo "  $answer"
		sample append "$(of "$answer" append_ns)"
		sample write "$(of "$answer" write_ns)"
		rm -rf "$work/append.$round"
		answer=$("$PROGRAMS/replay" --records 8000 2>"$work/line") || fail "$(tail -1 "$work/line")"
		echo "  $answer"
		sample replay "$(of "$answer" replay_per_s)"
		sample client "$(of "$answer" client_per_s)"
		sample client_1000 "$(of "$answer" client_1000_per_s)"
	done
	figure append_ns "$(median append)" ns "$(median write)" "write() of the same record" "< 1000 ns"
	figure replay_per_s "$(median replay)" records/s "$(median client)" "mariadb < the log's file" ">= 4.0"
	figure replay_batched_per_s "$(median replay)" records/s "$(median client_1000)" "mariadb, the same in transactions of 1000" ">= 1.5"
}
