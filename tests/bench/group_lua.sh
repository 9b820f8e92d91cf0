# shellcheck shell=bash
# lua: what the way through Lua costs beside the least it could cost: a request written by hand around one coroutine,
# protobuf-c's unpacked struct, lua-cjson, a bare lua_resume, libevent's timers.

lua_one() {        # lua_one COMMAND...: sets answer
	in_time
	# shellcheck disable=SC2154 # bench_begin has made it
	answer=$("$@" 2>"$work/line") || fail "$(tail -1 "$work/line")"
	echo "  ${1##*/}: $answer"
}

lua_round() {
	local key
	lua_one "$PROGRAMS/lua_codec" --rounds 200000
	for key in request_protobuf_ns request_by_hand_ns protobuf_to_table_ns unpacked_to_table_ns json_to_table_ns \
		task_empty_ns resume_pooled_ns; do
		sample "$key" "$(of "$answer" "$key")"
	done
	lua_one lua5.4 tests/bench/peers/cjson.lua 200000
	sample cjson_ns "$(of "$answer" decode_ns)"
	lua_one "$PROGRAMS/lua_timers" --live 3
	for key in turned_ns heap_ns lua_mb live_cpu_percent live_early live_late_p99_ms; do
		sample "$key" "$(of "$answer" "$key")"
	done
}

group_lua() {
	local round answer
	need "$PROGRAMS"/{lua_codec,lua_timers}
	for ((round = 0; round < ROUNDS; round++)); do lua_round; done
	figure request_ns "$(median request_protobuf_ns)" ns "$(median request_by_hand_ns)" \
		"the same by hand around one coroutine" "<= 1.3"
	figure protobuf_to_table_ns "$(median protobuf_to_table_ns)" ns "$(median unpacked_to_table_ns)" \
		"protobuf-c's unpacked struct" "<= 0.8"
	figure json_to_table_ns "$(median json_to_table_ns)" ns "$(median cjson_ns)" "lua-cjson" "<= 1.1"
	figure resume_ns "$(median task_empty_ns)" ns "$(median resume_pooled_ns)" "bare lua_resume" "<= 1.2"
	figure timers_million_cpu "$(median turned_ns)" "ns/firing" "$(median heap_ns)" "the same million in libevent" "<= 0.2"
	figure timers_million_live_cpu "$(median live_cpu_percent)" "% of one core"
	figure timers_million_mb "$(median lua_mb)" MB
	figure timers_million_early "$(median live_early)" timers "" "" "<= 0 timers"
	figure timers_million_late_p99_ms "$(median live_late_p99_ms)" ms
}
