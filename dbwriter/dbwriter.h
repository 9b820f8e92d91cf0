#pragma once
#include "rpc/service.h"
/*
 * dbwriter: lands every SQL log of this host in the database (replay.h). It runs on its first worker, whose thread may
 * block on files; nobody calls it but for its figures.
 */
extern const struct service_def dbwriter_service;
