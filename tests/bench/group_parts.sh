# shellcheck shell=bash
# parts: what the engine room's parts cost beside what people use in their place: the hand-over to the SQL log, the
# cache, the timing wheel, the logger, the inbox.

# A Redis that keeps nothing on disk, on core 1, where the bench counts on it; sets redis_port
start_redis() {
	local pid core=
	! taskset -c 1 true 2>/dev/null || core="taskset -c 1"
	for ((redis_port = 20000 + RANDOM % 10000; ; redis_port++)); do
		(: <>"/dev/tcp/127.0.0.1/$redis_port") 2>/dev/null || break
	done
	# shellcheck disable=SC2086 # two words or none
	$core redis-server --port "$redis_port" --bind 127.0.0.1 --save "" --appendonly no --dir "$work" >"$work/redis" 2>&1 &
	pid=$!
	started="$started $pid"
	wait_for 10 "redis to listen" grep -q "Ready to accept" "$work/redis"
}

parts_round() {
	one append --folder "$work/append.$1"
	samples append append_ns write_ns
	one durable --folder "$work/durable.$1"
	samples durable p50_us sync_us turn_sync_us
	one cache --redis "$redis_port"
	samples cache get_ns hot_get_ns put_ns overhead_bytes sieve_percent lru_percent redis_get_ns redis_hot_get_ns \
		redis_one_core_get_ns
	one cache_glib
	samples cache_glib get_ns put_ns
	one wheel --live 2
	samples wheel reset_ns expire_ns heap_reset_ns heap_expire_ns tick_ms live_cpu_percent live_late_p99_ms
	one wheel --timers 10000000 --no-heap
	sample wheel_10m_tick_ms "$(of "$answer" tick_ms)"
	for _ in 1 2 3; do
		one log "$work/log.$1"
		samples log call_ns p99_ns lines_per_s
		one log_spdlog "$work/spdlog.$1"
		samples log_spdlog call_ns p99_ns lines_per_s
		rm -f "$work/log.$1" "$work/spdlog.$1"
	done
	one inbox
	samples inbox inbox_ns mutex_ns wakes turns
	rm -rf "$work/append.$1" "$work/durable.$1"
}

group_parts() {
	local round answer redis_port
	need "$PROGRAMS"/{append,durable,cache,cache_glib,wheel,log,log_spdlog,inbox}
	start_redis
	for ((round = 0; round < ROUNDS; round++)); do parts_round "$round"; done
	figure append_ns "$(median append_append_ns)" ns "$(median append_write_ns)" "write() of the same record" "<= 0.25"
	figure durable_p50_us "$(median durable_p50_us)" us "$(median durable_sync_us)" "one fdatasync alone" "<= 2"
	figure durable_added_us "$(median durable_p50_us)" us "$(median durable_turn_sync_us)" "append and fdatasync of a turn's bytes"
	figure cache_get_ns "$(median cache_get_ns)" ns "$(median cache_glib_get_ns)" "GLib's GHashTable" "<= 0.85"
	figure cache_put_ns "$(median cache_put_ns)" ns "$(median cache_glib_put_ns)" "GLib's GHashTable" "<= 0.85"
	figure cache_get_redis "$(median cache_get_ns)" ns "$(median cache_redis_get_ns)" \
		"GET to Redis, a core each, keys at random" "<= 0.002"
	figure cache_get_redis_one_core "$(median cache_get_ns)" ns "$(median cache_redis_one_core_get_ns)" \
		"GET to Redis, one core for both"
	figure cache_get_redis_hot "$(median cache_hot_get_ns)" ns "$(median cache_redis_hot_get_ns)" \
		"GET to Redis, a core each, one key" "<= 0.002"
	figure cache_overhead_bytes "$(median cache_overhead_bytes)" bytes/entry "" "" "<= 32 bytes"
	figure cache_hits_percent "$(median cache_sieve_percent)" % "$(median cache_lru_percent)" "LRU in the same room" "> 1"
	figure wheel_reset_ns "$(median wheel_reset_ns)" ns "$(median wheel_heap_reset_ns)" "libevent's min-heap" "<= 0.1"
	figure wheel_expire_ns "$(median wheel_expire_ns)" ns "$(median wheel_heap_expire_ns)" "libevent's min-heap" "<= 0.2"
	figure wheel_tick_1m_ms "$(median wheel_tick_ms)" ms "" "" "<= 1 ms"
	figure wheel_tick_10m_ms "$(median wheel_10m_tick_ms)" ms "" "" "<= 5 ms"
	figure wheel_live_1m_cpu "$(median wheel_live_cpu_percent)" "% of one core"
	figure wheel_live_1m_late_p99_ms "$(median wheel_live_late_p99_ms)" ms
	figure log_call_ns "$(median log_call_ns)" ns "$(median log_spdlog_call_ns)" "spdlog, asynchronous" "<= 0.125"
	figure log_call_p99_ns "$(median log_p99_ns)" ns "$(median log_spdlog_p99_ns)" "spdlog, asynchronous" "<= 0.05"
	figure log_lines "$(median log_lines_per_s)" lines/s "$(median log_spdlog_lines_per_s)" "spdlog, asynchronous" ">= 2"
	figure inbox_ns "$(median inbox_inbox_ns)" ns "$(median inbox_mutex_ns)" "mutex and condition variable" "<= 0.5"
	figure inbox_wakes "$(median inbox_wakes)" wake-ups "$(median inbox_turns)" "batches taken" "<= 1"
}
