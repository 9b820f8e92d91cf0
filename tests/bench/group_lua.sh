# shellcheck shell=bash
# lua: what the way through Lua costs beside the least it could cost: a request written by hand around one coroutine,
# protobuf-c's unpacked struct, lua-cjson, a bare lua_resume, libevent's timers; what its collector holds up beside Lua's own,
# what the limits cost, how long a reload takes.

lua_one() {        # lua_one COMMAND...: sets answer
	in_time
	# shellcheck disable=SC2154 # bench_begin has made it
	answer=$("$@" 2>"$work/line") || fail "$(tail -1 "$work/line")"
	echo "  ${1##*/}: $answer"
}

lua_round() {
	local key
	lua_one "$PROGRAMS/lua_codec" --rounds 70000
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

lua_gc_round() {
	one lua_gc --seconds 6 --texts 500000
	samples lua_gc longest_ms grow_longest_ms cpu_us
	one lua_gc --seconds 6 --plain
	sample lua_plain_longest_ms "$(of "$answer" longest_ms)"
	sample lua_plain_cpu_us "$(of "$answer" cpu_us)"
	one lua_gc --seconds 3 --gc generational
	sample lua_generational_ms "$(of "$answer" longest_ms)"
	one lua_limits
	samples lua_limits with_ms without_ms reload_ms held_ms
}

group_lua() {
	local round answer
	need "$PROGRAMS"/{lua_codec,lua_timers,lua_gc,lua_limits}
	for ((round = 0; round < ROUNDS; round++)); do lua_round; lua_gc_round; done
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
	figure gc_pause_max_ms "$(median lua_gc_longest_ms)" ms "$(median lua_plain_longest_ms)" \
		"Lua's own collector and allocator" "<= 10 ms"
	figure gc_growth_pause_max_ms "$(median lua_gc_grow_longest_ms)" ms
	figure gc_generational_max_ms "$(median lua_generational_ms)" ms
	figure gc_request_cpu_us "$(median lua_gc_cpu_us)" us "$(median lua_plain_cpu_us)" "Lua's own collector and allocator"
	figure budget_cost "$(median lua_limits_with_ms)" ms "$(median lua_limits_without_ms)" "the same loop without limits" \
		"<= 1.03"
	figure reload_ms "$(median lua_limits_reload_ms)" ms
	figure reload_held_ms "$(median lua_limits_held_ms)" ms "" "" "<= 5 ms"
}
