#pragma once
#include <stdbool.h>
/*
 * show_main: the part of dbwriter's command line that is for people.
 *
 *   --dump FILE, --verify FILE          a log file (show.h)
 *   --status, --quarantine, --replay    with the cluster's configuration (show.h, restore.h); --help tells more
 *
 * True: argv asked for one of them, and *status is the exit status; false: it is not for us.
 */
bool show_main(int argc, char **argv, int *status);
