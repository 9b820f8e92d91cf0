#pragma once
#include "tests/support/clientserver.h"
/*
 * clientecho: a clientserver that echoes, and knows a few routes that make it do things: kick, early (a strike), login, fail,
 * push.me, push.all; flood (until it is refused), some (more than sockets take at once, if the client does not read), moves
 * (500 pushes of which each supersedes those before). "fail" and "onPush" travel as codes 1 and 2.
 *
 * Threads: the test's own; what it does is done on the worker. echo_setup and echo_teardown are the checked fixture's.
 */
extern struct clientserver server;
extern struct flag echo_moved; /* how often moves has been done */

void echo_setup(void);
void echo_teardown(void);
void echo_open(void); /* a test that wants other limits changes server before */
