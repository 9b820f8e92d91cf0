#pragma once
/* version: what --version, /metrics and the first screen say. */
#define LOQUAT_VERSION "0.1.0"
