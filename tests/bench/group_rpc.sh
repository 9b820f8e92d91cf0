# shellcheck shell=bash
# rpc: calls between two processes, one core each, 50 bytes each way, beside bare epoll and gRPC C++; and what single steps
# of a call cost; and what becomes of a slow method that is asked for too often. Every program is both sides: it forks its
# server.

# rpc_one NAME PROGRAM ARGUMENTS...: one closed loop; samples NAME_rate, _p50, _p99, _client, _server, and _cpu: both sides'
rpc_one() {
	local again name=$1 program=$2
	shift 2
	for again in 1 0; do
		in_time
		answer=$("$PROGRAMS/$program" --seconds 2 "$@" 2>"$work/line") || fail "$program: $(tail -1 "$work/line")"
		quiet "$(of "$answer" other_cores)" && break
		[ "$again" != 0 ] && [ "$SECONDS" -lt "$REPEAT_S" ] || disturbed=$((disturbed + 1))
		[ "$SECONDS" -lt "$REPEAT_S" ] || break
	done
	echo "  $name, $answer"
	sample "${name}_rate" "$(of "$answer" calls_per_s)"
	sample "${name}_p50" "$(of "$answer" p50_us)"
	sample "${name}_p99" "$(of "$answer" p99_us)"
	sample "${name}_client" "$(of "$answer" client_cpu_us)"
	sample "${name}_server" "$(of "$answer" server_cpu_us)"
	sample "${name}_cpu" "$(awk -v a="$(of "$answer" client_cpu_us)" -v b="$(of "$answer" server_cpu_us)" 'BEGIN { print a + b }')"
}

rpc_steps() {
	in_time
	answer=$("$PROGRAMS/rpc_micro") || fail "rpc_micro failed"
	echo "  $answer"
	for step in encode decode pending; do
		sample "$step" "$(of "$answer" "${step}_ns")"
		sample "${step}_other" "$(of "$answer" "${step}_other_ns")"
	done
}

rpc_overload() {
	local again
	for again in 1 0; do
		one rpc_overload
		quiet "$(of "$answer" other_cores)" && break
		[ "$again" != 0 ] && [ "$SECONDS" -lt "$REPEAT_S" ] || disturbed=$((disturbed + 1))
		[ "$SECONDS" -lt "$REPEAT_S" ] || break
	done
	samples rpc_overload accepted_p99_us bound_us busy_p99_us free_p99_us accepted_per_s can_per_s
}

# Of two medians the larger, the smaller.
dearer() { printf '%s\n%s\n' "$(median "$1")" "$(median "$2")" | sort -g | tail -1; }
cheaper() { printf '%s\n%s\n' "$(median "$1")" "$(median "$2")" | sort -g | head -1; }

group_rpc() {
	local round step answer
	need "$PROGRAMS/rpc_limit" "$PROGRAMS/rpc_grpc" "$PROGRAMS/rpc_loquat" "$PROGRAMS/rpc_micro" \
		"$PROGRAMS/rpc_overload"
	for ((round = 0; round < ROUNDS; round++)); do
		rpc_one epoll_1 rpc_limit --flight 1
		rpc_one one rpc_loquat --flight 1
		rpc_one epoll_polling rpc_limit --flight 1 --poll
		rpc_one polling rpc_loquat --flight 1 --poll
		rpc_one epoll_64 rpc_limit --flight 64
		rpc_one some rpc_loquat --flight 64
		rpc_one epoll_1024 rpc_limit --flight 1024
		rpc_one grpc rpc_grpc --flight 1024
		rpc_one many rpc_loquat --flight 1024
		rpc_one once rpc_loquat --flight 1024 --once
		rpc_one lua rpc_loquat --flight 1024 --lua
		rpc_steps
		rpc_overload
	done
	figure one_in_flight_p50 "$(median one_p50)" us "$(median epoll_1_p50)" "bare epoll ping-pong" "<= 1.15"
	figure one_in_flight_p50_polling "$(median polling_p50)" us \
		"$(median epoll_polling_p50)" "bare epoll, both poll" "<= 1.5"
	figure in_flight_64_calls "$(median some_rate)" calls/s "$(median epoll_64_rate)" "bare epoll, 64 pipelined" ">= 0.6"
	figure in_flight_1024_calls "$(median many_rate)" calls/s \
		"$(median grpc_rate)" "gRPC C++, one bidirectional stream" ">= 10"
	figure in_flight_1024_p99 "$(median many_p99)" us "$(median grpc_p99)" "gRPC C++, the same" "< 3000 us"
	figure in_flight_1024_cpu_us "$(dearer many_client many_server)" "us/call, dearer side" \
		"$(cheaper grpc_client grpc_server)" "gRPC C++, its cheaper side" "<= 0.08"
	figure in_flight_1024_over_epoll "$(median many_rate)" calls/s "$(median epoll_1024_rate)" "bare epoll, 1024 pipelined"
	figure envelope_encode_ns "$(median encode)" ns "$(median encode_other)" "nanopb, the same bytes" "<= 0.1"
	figure envelope_decode_ns "$(median decode)" ns "$(median decode_other)" "nanopb, the same bytes" "<= 0.17"
	figure pending_and_deadline_ns "$(median pending)" ns \
		"$(median pending_other)" "libevent event_add + event_del" "<= 0.15"
	figure once_over_plain "$(median once_cpu)" "us/call, both sides" "$(median many_cpu)" "a plain call" "<= 1.3"
	figure lua_call_us "$(median lua_cpu)" "us/call, both sides" "$(median many_cpu)" "the C call" "<= limit + 2 us"
	figure overload_accepted_p99 "$(median rpc_overload_accepted_p99_us)" us \
		"$(median rpc_overload_bound_us)" "a full queue's rounds and its own" "<= 1.2"
	figure overload_accepted "$(median rpc_overload_accepted_per_s)" calls/s \
		"$(median rpc_overload_can_per_s)" "all places always taken" ">= 0.9"
	figure overload_busy_p99 "$(median rpc_overload_busy_p99_us)" us \
		"$(median rpc_overload_free_p99_us)" "answers without a limit, then and there" "<= 1.5"
}
