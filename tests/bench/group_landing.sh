# shellcheck shell=bash
# landing: how fast the logs land in the database, and what a copy on another host costs who waits for it. What it costs to
# hand a change to the log is in the group parts.
#
# LAG_S=60 and RECOVER_RECORDS=10000000 are the long forms of two figures: they need 2 GB in /tmp.

# The same call, one at a time, with sqllog.durable = "replicated" and "synced"; the hosts are two addresses of this one.
copies_round() {
	local answers=$work/answers
	in_time
	STANDBY_ANSWERS=1000 tests/system/standby >"$answers" 2>&1 || fail "tests/system/standby: $(tail -1 "$answers")"
	sed -n 's/^\(replicated\|synced\) /  &/p' "$answers"
	sample replicated "$(of "$(grep ^replicated "$answers")" p50_us)"
	sample synced "$(of "$(grep ^synced "$answers")" p50_us)"
}

# The replay of text logs into tables, the position in the transaction.
group_landing() {
	local round answer records=200000 seconds=${LAG_S:-15} recover=${RECOVER_RECORDS:-1000000}
	GROUP_S=$((GROUP_S + (seconds - 15) * 2 + recover / 20000 - 50))
	need "$PROGRAMS"/{replay,answers}
	for ((round = 0; round < ROUNDS; round++)); do
		in_time
		answer=$("$PROGRAMS/replay" --records $records 2>"$work/line") || fail "$(tail -1 "$work/line")"
		echo "  $answer"
		sample replay "$(of "$answer" replay_per_s)"
		sample folded "$(of "$answer" folded_per_s)"
		sample two "$(of "$answer" two_per_s)"
		sample load "$(of "$answer" load_per_s)"
		sample client_1000 "$(of "$answer" client_1000_per_s)"
		answer=$("$PROGRAMS/replay" --recover "$recover" 2>"$work/line") || fail "$(tail -1 "$work/line")"
		echo "  $answer"
		sample recover "$(of "$answer" recover_per_s)"
		sample read "$(of "$answer" read_per_s)"
		copies_round
	done
	answer=$("$PROGRAMS/replay" --lag $seconds 40000 2>"$work/line") || fail "$(tail -1 "$work/line")"
	echo "  $answer"
	figure replay_records "$(median replay)" records/s "$(median client_1000)" "mariadb < file in transactions of 1000" ">= 10"
	figure replay_folded "$(median folded)" records/s "$(median client_1000)" "mariadb < file in transactions of 1000" ">= 20"
	figure replay_two_connections "$(median two)" records/s "$(median load)" "LOAD DATA of the same rows, two connections" ">= 0.4"
	figure lag_s "$(of "$answer" lag_s)" s 1 "40000 records/s for $seconds s" "< 1"
	figure answer_replicated_us "$(median replicated)" us "$(median synced)" "the same call without the copy"
	figure recover_records "$(median recover)" records/s "$(median read)" "reading the file" ">= 2000000 records/s"
}
