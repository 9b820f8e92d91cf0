#pragma once
/* version: what --version, /metrics and the first screen say. Threads: any; constants. */
#define LOQUAT_VERSION "0.1.0"
/* The newest of Loquat's own files in deploy/schema: the tables that this build writes to (tests/lint/schema). */
#define LOQUAT_SCHEMA 5
