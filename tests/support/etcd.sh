# shellcheck shell=bash
# etcd.sh: a real etcd for a test: Debian's etcd-server, unpacked into build/etcd (not installed) and started on free ports
# of loopback with its data in the test's own folder.
etcd_bin=build/etcd/usr/bin/etcd

# Fetches and unpacks it once; false: it cannot be had.
etcd_get() {
	[ -x $etcd_bin ] && return
	mkdir -p build/etcd.new
	(cd build/etcd.new && apt-get -q download etcd-server && dpkg -x etcd-server_*.deb .) >"$work/etcd-get.log" 2>&1 &&
		rm -rf build/etcd && mv build/etcd.new build/etcd
	[ -x $etcd_bin ]
}

# etcd_start PORT FOLDER [OPTION...]: with peer port PORT + 1; sets etcd_pid. Clients may also come to $etcd_also, a URL.
etcd_also=
etcd_start() {
	local port=$1 folder=$2
	shift 2
	$etcd_bin --data-dir "$folder" --listen-client-urls "http://127.0.0.1:$port${etcd_also:+,$etcd_also}" \
		--advertise-client-urls "http://127.0.0.1:$port" --listen-peer-urls "http://127.0.0.1:$((port + 1))" \
		--initial-advertise-peer-urls "http://127.0.0.1:$((port + 1))" \
		--initial-cluster "default=http://127.0.0.1:$((port + 1))" --logger zap --log-level error "$@" \
		>>"$work/etcd.log" 2>&1 &
	etcd_pid=$!
	started+=("$etcd_pid")
	etcd_port=$port
	wait_for 20 "etcd answers" etcd_is_up
}
etcd_is_up() { [ "$(etcd_post /v3/maintenance/status '{}' | grep -c '"leader"')" = 1 ]; }

etcd_post() {  # etcd_post PATH JSON: what it answers
	exec 4<>"/dev/tcp/127.0.0.1/$etcd_port" || return
	printf 'POST %s HTTP/1.0\r\nHost: etcd\r\nContent-Length: %s\r\n\r\n%s' "$1" "${#2}" "$2" >&4
	sed '1,/^\r*$/d' <&4
	exec 4>&-
} 2>/dev/null

etcd_put() {   # etcd_put KEY VALUE
	etcd_post /v3/kv/put "{\"key\":\"$(printf %s "$1" | base64 -w0)\",\"value\":\"$(printf %s "$2" | base64 -w0)\"}" >/dev/null
}
etcd_delete() { etcd_post /v3/kv/deleterange "{\"key\":\"$(printf %s "$1" | base64 -w0)\"}" >/dev/null; }
etcd_compact() { # up to what is the newest now
	local revision
	revision=$(etcd_post /v3/maintenance/status '{}' | sed 's/.*"revision":"\([0-9]*\)".*/\1/')
	etcd_post /v3/kv/compaction "{\"revision\":\"$revision\",\"physical\":true}" >/dev/null
}
