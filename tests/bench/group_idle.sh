# shellcheck shell=bash
# idle: what the whole cluster of deploy/cluster.lua takes of one core when nobody plays.

group_idle() {
	local round before after pids
	cluster_start
	mapfile -t pids < <(cluster_pids)
	sleep 3         # what start-up left behind is not idleness
	for ((round = 0; round < ROUNDS; round++)); do
		in_time
		before=$(cpu_s "${pids[@]}")
		sleep 10
		after=$(cpu_s "${pids[@]}")
		sample idle "$(awk -v a="$before" -v b="$after" 'BEGIN { print (b - a) / 10 * 100 }')"
	done
	figure idle_cluster_cpu "$(median idle)" "% of one core"
}
