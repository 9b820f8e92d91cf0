#pragma once
#include "common/env_sim.h"
/* sim_schema: the files of deploy/schema, in order, run in the world's database. What fails is the world's failure. */
void sim_schema(struct sim *w);
