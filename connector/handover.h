#pragma once
#include "rpc/handover.h"
/* handover: the players stay while a new process of this connector takes its place. What it means: rpc/handover.h. */
extern const struct handover_def connector_handover;
