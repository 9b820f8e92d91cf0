#include <check.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>
#include "tests/support/edgecluster.h"
static struct edgecluster c;
static int th;
START_TEST(go){ edgecluster_start(&c,&(struct edgecluster_options){.threads=(unsigned)th, .lua="connector={packets_per_s=1000000},"}); printf("port %u pids %d gate %u\n", c.connector_port[0], getpid(), c.gate_port[0]); fflush(stdout); for(;;) pause(); } END_TEST
int main(int argc,char**argv){ (void)argc; th=atoi(argv[1]); Suite*s=suite_create("x"); TCase*t=tcase_create("x"); tcase_add_test(t,go); suite_add_tcase(s,t); SRunner*r=srunner_create(s); srunner_set_fork_status(r,CK_NOFORK); srunner_run_all(r,CK_SILENT); return 0;}
