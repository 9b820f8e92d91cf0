#pragma once
#include "connector/session.h"
/* remote: connectorRemote: what services ask of a connector. Before the worker is ready. */
void remote_register(struct edge *e);
