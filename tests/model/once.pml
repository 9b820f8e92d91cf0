/*
 * Once-calls (rpc/once.h) as a model: a client with two numbered calls, or two callers who ask for one business key with
 * different bodies (-DONLY_KEY=1); a server that dies, with or without its machine, and whose disk fails; a log that loses what was
 * not synced; a network that loses, doubles and reorders messages, but ends with either side's process, as TCP does.
 *
 * Proven over all courses: no call takes effect twice; what was answered has had its effect and is durable; a call under
 * way is never refused as forgotten; a key has one body; what was told an error has no effect.
 *
 * BROKEN plants a mistake: 1 answers before the record is durable; 2 does not load after a crash; 3 acknowledges one too
 * many; 4 forgets what was lost; 5 stores no answer beside the effect; 6 compares no fingerprint; 7 forgets an error it told.
 */
#ifndef BROKEN
#define BROKEN 0
#endif
#ifndef ONLY_KEY
#define ONLY_KEY 0 /* 0: the calls 0 and 1, which are sequences; 1: 2 and OTHER, under a business key */
#endif
#define KEY 2    /* the completion of the key; what 0 and 1 complete has their own number */
#define OTHER 3  /* the other caller's call under the key: a number of its own, another body */
#define ALL 4
#define ENTRIES 3
#define TRIES 2
#define CRASHES 1

#define ENTRY(call) (call == OTHER -> KEY : call)

mtype = { DONE, FORGOTTEN, REUSED, REFUSED };          /* answers */
mtype = { NO, RUNNING, WRITING, STORED };              /* what the server's memory holds of an entry */

chan request = [2] of { byte, byte, bool, byte };      /* call, first incomplete, sent before, start of the server */
chan answer = [2] of { byte, mtype, byte };

/* the log: written is lost with the machine, synced is not */
bool written[ENTRIES], synced[ENTRIES], row[ENTRIES];
byte effects[ENTRIES], body[ENTRIES];                   /* body: whose call it was */
byte start = 1, crashes;

/* the server's memory */
mtype memory[ENTRIES];
byte runs[ENTRIES];                                     /* for which call */
bool told_error[ALL];                                   /* until it is acknowledged */
bool loaded, lost;
byte acknowledged;

/* the callers */
bool pending[ALL], ok[ALL], refused[ALL];
byte tries[ALL], connection[ALL];

inline forget_memory() {
	d_step {
		for (i : 0 .. ENTRIES - 1) { memory[i] = NO; runs[i] = 0 }
		for (i : 0 .. ALL - 1) { told_error[i] = false }
		loaded = false; lost = false; acknowledged = 0
	}
	i = 0
}

/* Rows of a key, and of sequences that are not acknowledged. The replay has passed: what the log holds has landed for good. */
inline load() {
	d_step {
		for (i : 0 .. ENTRIES - 1) {
			synced[i] = written[i];
			if
			:: row[i] && memory[i] == NO && (i == KEY || i >= acknowledged) -> memory[i] = STORED
			:: else
			fi
		}
		loaded = true; lost = false
	}
	i = 0
}

inline tell(c, what) {
	if
	:: nfull(answer) -> answer!c, what, start
	:: true /* it is lost */
	fi
}

inline serve(call, first, again, to) {
	if
	:: to != start -> skip
	:: else ->
		if
		:: first > acknowledged && call != OTHER -> acknowledged = first
		:: else
		fi;
		e = ENTRY(call);
		if
		:: call != OTHER && call < acknowledged -> tell(call, FORGOTTEN)
		:: else ->
			if
			:: BROKEN != 7 && told_error[call] -> tell(call, REFUSED)
			:: else ->
				if
				:: memory[e] == NO && !loaded && BROKEN != 2 && (e == KEY || again || (lost && BROKEN != 4)) -> load()
				:: else
				fi;
				if
				:: memory[e] == NO -> memory[e] = RUNNING; runs[e] = call
				:: memory[e] != NO ->
					if
					:: e == KEY && BROKEN != 6 && (memory[e] == STORED -> body[e] : runs[e]) != call ->
						tell(call, REUSED)
					:: else ->
						if
						:: memory[e] == STORED -> tell(call, DONE)
						:: else /* it waits: the repeat gets the answer */
						fi
					fi
				fi
			fi
		fi
	fi
}

#define PICK(state) \
	memory[0] == state || memory[1] == state || memory[2] == state -> \
	if \
	:: memory[0] == state -> e = 0 \
	:: memory[1] == state -> e = 1 \
	:: memory[2] == state -> e = 2 \
	fi
#define GONE(e) (e < acknowledged && memory[e] == STORED && synced[e])

active proctype server() {
	byte call, first, to, i, e;
	bool again;

	do
	:: atomic { request??call, first, again, to -> serve(call, first, again, to); call = 0; first = 0; again = 0; to = 0; e = 0 }
	:: atomic { request ?? <call, first, again, to> -> serve(call, first, again, to); call = 0; first = 0; again = 0; to = 0; e = 0 }
	:: atomic { request??call, first, again, to -> call = 0; first = 0; again = 0; to = 0 } /* lost */
	:: atomic { answer ?? <call, _, _> -> answer??call, _, _; call = 0 }                       /* lost */
	:: atomic { /* a function ends: with an error */
		PICK(RUNNING);
		memory[e] = NO;
		told_error[runs[e]] = true;
		tell(runs[e], REFUSED);
		e = 0 }
	:: atomic { /* or with its record */
		PICK(RUNNING);
		memory[e] = WRITING;
		written[e] = true;
		row[e] = (BROKEN != 5);
		effects[e]++;
		body[e] = runs[e];
		assert(effects[e] <= 1);
		if
		:: BROKEN == 1 -> memory[e] = STORED; tell(runs[e], DONE)
		:: else
		fi;
		e = 0 }
	:: atomic { /* the record is durable */
		PICK(WRITING);
		d_step { for (i : 0 .. ENTRIES - 1) { synced[i] = synced[i] || written[i] } };
		i = 0;
		memory[e] = STORED;
		tell(runs[e], DONE);
		e = 0 }
	:: atomic { /* the disk failed: it may come to be, later */
		PICK(WRITING);
		memory[e] = NO;
		loaded = false;
		lost = true;
		e = 0 }
	:: atomic { /* what was acknowledged goes, from memory and then from the table */
		GONE(0) || GONE(1) ->
		if
		:: GONE(0) -> e = 0
		:: GONE(1) -> e = 1
		fi;
		memory[e] = NO;
		row[e] = false;
		e = 0 }
	:: atomic { crashes < CRASHES -> crashes++; start++; forget_memory() } /* the process: what is written stays */
	:: atomic { crashes < CRASHES -> /* the machine: what is not synced may go */
		crashes++; start++;
		forget_memory();
		do
		:: i < ENTRIES ->
			if
			:: written[i] && !synced[i] -> written[i] = false; row[i] = false; effects[i]--
			:: written[i] -> synced[i] = true
			:: !written[i]
			fi;
			i++
		:: i >= ENTRIES -> break
		od;
		i = 0 }
	od
}

/* The first of the client's calls that is incomplete. */
#define FIRST (pending[0] -> 0 : (pending[1] -> 1 : (pending[2] -> 2 : 3)))

#define SENDS(call) (pending[call] && tries[call] < TRIES)
#define WAITS(call) (pending[call] && tries[call] > 0)

inline hear(call, what) {
	if
	:: what == DONE -> ok[call] = true
	:: what == REFUSED -> refused[call] = true
	:: what == REUSED -> assert(ENTRY(call) == KEY)
	:: what == FORGOTTEN -> assert(false)
	fi;
	assert(!ok[call] || (synced[ENTRY(call)] && effects[ENTRY(call)] == 1));
	assert(!ok[call] || ENTRY(call) != KEY || body[KEY] == call)
}

active proctype callers() {
	byte call, to;
	mtype what;

	d_step {
		for (call : 0 .. ALL - 1) { pending[call] = ((call >= KEY) == ONLY_KEY) }
		call = 0
	}
	do
	:: atomic { /* sends, or sends again */
		nfull(request) && (SENDS(0) || SENDS(1) || SENDS(2) || SENDS(3)) ->
		if
		:: SENDS(0) -> call = 0
		:: SENDS(1) -> call = 1
		:: SENDS(2) -> call = 2
		:: SENDS(3) -> call = 3
		fi;
		request!call, (BROKEN == 3 && call != OTHER -> call + 1 : FIRST), (tries[call] > 0), start;
		tries[call]++;
		connection[call] = start;
		call = 0 }
	:: atomic { answer??call, what, to ->
		if
		:: pending[call] && connection[call] == to -> pending[call] = false; hear(call, what)
		:: else
		fi;
		call = 0; to = 0; what = 0 }
	:: atomic { /* its time is over: unknown */
		WAITS(0) || WAITS(1) || WAITS(2) || WAITS(3) ->
		if
		:: WAITS(0) -> pending[0] = false
		:: WAITS(1) -> pending[1] = false
		:: WAITS(2) -> pending[2] = false
		:: WAITS(3) -> pending[3] = false
		fi }
	od
}

/* At any moment: who was told an error has no effect. */
active proctype observer() {
	do
	:: atomic { refused[0] && effects[0] -> assert(false) }
	:: atomic { refused[1] && effects[1] -> assert(false) }
	:: atomic { refused[2] && effects[KEY] && body[KEY] == 2 -> assert(false) }
	:: atomic { refused[OTHER] && effects[KEY] && body[KEY] == OTHER -> assert(false) }
	:: atomic { (ok[0] && !effects[0]) || (ok[1] && !effects[1]) || (ok[2] && body[KEY] != 2) -> assert(false) }
	od
}
