#pragma once
#include <stdbool.h>
#include <stdint.h>
#include "common/env.h"
/*
 * fake_etcd: as much of etcd's v3 JSON gateway as Loquat uses, for the simulation: keys with revisions, transactions guarded
 * by one compare, leases that end, watches that resume from a revision, compaction.
 *
 * Threads: fake_etcd_main is a simulated process' main; the rest is called from outside, and done at its next tick.
 * Memory:  all of it is in the struct, which is the test's, so that it survives the process as a disk would.
 */
#define FAKE_KEYS    64
#define FAKE_LEASES  256
#define FAKE_CHANGES 4096
#define FAKE_PORT    2379

struct fake_change {
	uint64_t revision;
	char key[160], value[600]; /* as they travel: base64 */
	bool gone;
};
struct fake_etcd {
	uint64_t cluster, revision, compacted;
	struct fake_key {
		char key[160], value[600];
		uint64_t mod, create;
		int64_t lease;
		bool there;
	} key[FAKE_KEYS];
	struct fake_lease {
		int64_t id;
		uint64_t ttl_ns, until_ns;
	} lease[FAKE_LEASES];
	int64_t lease_next;
	struct fake_change change[FAKE_CHANGES];
	unsigned changes;
	bool cut, expire; /* asked for */
	int asks;         /* status for who comes without a token; 0: nobody is asked for one */
	unsigned watches;
};
void fake_etcd_init(struct fake_etcd *e, uint64_t cluster);
void fake_etcd_main(struct env *env, void *fake_etcd);
void fake_etcd_forget(
	struct fake_etcd *e); /* its disk is lost: another cluster, from revision 1 on. While it is down */
void fake_etcd_compact(struct fake_etcd *e); /* the history is gone */
