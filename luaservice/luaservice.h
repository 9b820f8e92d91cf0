#pragma once
/*
 * luaservice: service_main for a service that has no program of its own. Its name is how it was called, as `loquat up`
 * does it, or the option --service NAME. It has an SQL log, for it may use db.
 */
int luaservice_main(int argc, char **argv);
