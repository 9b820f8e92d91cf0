#pragma once
#include <stdbool.h>
/*
 * show_main: the part of dbwriter's command line that is for people.
 *
 *   --dump FILE      every record of a log file
 *   --verify FILE    whether it is sound; exit 1 if not
 *   --status [--config FILE]   position and lag of every log; exit 1 while something has not landed
 *
 * True: argv asked for one of them, and *status is the exit status; false: it is not for us.
 */
bool show_main(int argc, char **argv, int *status);
