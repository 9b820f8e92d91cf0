#pragma once
#include "common/token.h"
#include "tests/support/edgecluster.h"
#include "tests/support/wireclient.h"
/*
 * edgeplay: an edgecluster around each test, with 1 or with 3 workers, and how players come to it.
 *
 * Threads: the test's own. Trouble fails the test.
 */
#define ENTER  "connector.entryHandler.enter"
#define RESUME "connector.entryHandler.resume"
#define ECHO   "connector.entryHandler.echo"
#define QUERY  "gate.gateHandler.queryEntry"

extern struct edgecluster cluster;
extern const unsigned threads[2]; /* workers, by the number of a loop test's run */

void edge_begin(int i, const char *lua); /* threads[i]; lua as in edgecluster_options */
void edge_end(void);

void expect(const char *answer, const char *part); /* the part stands in it; NULL for an answer fails */
/* The text of a member of the answer, or its number; "" without it. Good until the call after the next. */
const char *member(const char *answer, const char *name);
/* A request that gives a member of an answer back: {"ticket":"…"}. Without it the test fails. */
#define GIVE_BACK_MAX (TOKEN_MAX + 40)
void give_back(char body[GIVE_BACK_MAX], const char *answer, const char *name);

/* A guest into room "lobby", over TCP; the answer. */
const char *enter_guest(struct wireclient *c, int connector, const char *name);
/* A guest who is in a scene, too; its session's number to *sid, the request that resumes it to resume. */
void enter_to_resume(struct wireclient *c, const char *name, uint64_t *sid, char resume[GIVE_BACK_MAX]);
/* Asks gate i, again while no connector has told it how full it is; the answer. */
const char *query(struct wireclient *gate, int i, const char *body);
/* Asks the first gate, which lets it in, and enters by its token, over WebSocket. */
void enter_by_gate(struct wireclient *c, const char *query_body);
/* Enters by the token that a gate gave this uid in an answer or an admission, over TCP; the answer. */
const char *enter_admitted(struct wireclient *c, const char *way, const char *uid);
