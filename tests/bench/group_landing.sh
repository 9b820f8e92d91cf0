# shellcheck shell=bash
# landing: how fast the logs land in the database. What it costs to hand a change to the log is in the group parts.

# The replay of text logs into tables, the position in the transaction.
group_landing() {
	local round answer records=200000 seconds=15
	need "$PROGRAMS/replay"
	for ((round = 0; round < ROUNDS; round++)); do
		in_time
		answer=$("$PROGRAMS/replay" --records $records 2>"$work/line") || fail "$(tail -1 "$work/line")"
		echo "  $answer"
		sample replay "$(of "$answer" replay_per_s)"
		sample folded "$(of "$answer" folded_per_s)"
		sample two "$(of "$answer" two_per_s)"
		sample load "$(of "$answer" load_per_s)"
		sample client_1000 "$(of "$answer" client_1000_per_s)"
		answer=$("$PROGRAMS/replay" --recover 1000000 2>"$work/line") || fail "$(tail -1 "$work/line")"
		echo "  $answer"
		sample recover "$(of "$answer" recover_per_s)"
		sample read "$(of "$answer" read_per_s)"
	done
	answer=$("$PROGRAMS/replay" --lag $seconds 40000 2>"$work/line") || fail "$(tail -1 "$work/line")"
	echo "  $answer"
	figure replay_records "$(median replay)" records/s "$(median client_1000)" "mariadb < file in transactions of 1000" ">= 10"
	figure replay_folded "$(median folded)" records/s "$(median client_1000)" "mariadb < file in transactions of 1000" ">= 20"
	figure replay_two_connections "$(median two)" records/s "$(median load)" "LOAD DATA of the same rows, two connections" ">= 0.4"
	figure lag_s "$(of "$answer" lag_s)" s 1 "40000 records/s for $seconds s" "< 1"
	figure recover_records "$(median recover)" records/s "$(median read)" "reading the file" ">= 2000000 records/s"
}
