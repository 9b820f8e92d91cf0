# Loquat's build. `make help` lists what it can do. A new file needs no edit here: folders are read by
# wildcard. Which folder may use which is the list in CONTRIBUTING.md; `make lint` proves it.
#
#   build/gen      what protoc makes of proto/        build/bin    the programs
#   build/obj      objects, build/lib the libraries   build/tests  the test programs, build/tests/log their words

ifeq ($(MAKELEVEL),0)
MAKEFLAGS += -j$(shell nproc) --no-print-directory
endif
BUILD := build#             build/asan and build/tsan hold the same tree under a sanitizer
GEN   := build/gen#         generated sources are the same for all of them
SAN   :=#                   address,undefined or thread

ifeq ($(origin CC),default)
CC    := gcc
endif
WARN  := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wformat=2
ifneq ($(filter true 1,$(CI) $(WERROR)),)
WARN  += -Werror#           never for users: a newer compiler must not lock them out
endif
HARD  := -fstack-protector-strong -D_FORTIFY_SOURCE=2
# gcc's generic tuning clears a struct by `rep stos`, 30 cycles however small it is: a fifth of what a call costs.
TUNE  := $(if $(filter x86_64,$(shell uname -m)),-mtune=skylake)
OPT   := -O2 -g -fno-omit-frame-pointer $(TUNE)
ifneq ($(SAN),)
OPT   := -O1 -g -fno-omit-frame-pointer -fsanitize=$(SAN) $(if $(findstring undefined,$(SAN)),-fno-sanitize-recover=undefined)
HARD  :=
endif
CPPFLAGS := -I$(GEN) -I. -I/usr/include/lua5.4 -I/usr/include/mariadb -D_GNU_SOURCE
CFLAGS   := -std=gnu11 $(OPT) $(HARD)
LDFLAGS  := -Wl,--as-needed -Wl,-z,relro,-z,now $(if $(SAN),-fsanitize=$(SAN)) -L$(BUILD)/lib
# Lua is linked statically: the simulation needs it so, and then the programs run the very same code.
SYSLIBS  := -l:liblua5.4.a -levent_core -levent_extra -levent_openssl -levent_pthreads -lprotobuf-c -ljansson \
	-lmariadb -lwslay -lssl -lcrypto -lz -lm -ldl -lpthread
# The simulation gives each process memory of its own, at the same addresses in each run of a seed: so no PIE,
# malloc and what reads a clock behind its back wrapped, and the libraries that allocate for us linked statically.
comma := ,
SIM_WRAP := malloc calloc realloc reallocarray free strdup strndup posix_memalign aligned_alloc time clock __assert_fail
SIM_LDFLAGS := -no-pie $(SIM_WRAP:%=-Wl$(comma)--wrap=%) -l:libprotobuf-c.a -l:libjansson.a

# ---- what there is
SERVICES := $(patsubst %/main.c,%,$(wildcard */main.c))
LIBS     := common rpc $(SERVICES)
PROTOS   := $(wildcard proto/*.proto)
GEN_C    := $(PROTOS:%.proto=$(GEN)/%.pb-c.c) $(GEN)/google/protobuf/descriptor.pb-c.c
NANOPB   := $(patsubst %.proto,$(GEN)/nanopb/%.pb.c,$(wildcard proto/rpc.proto))
ENVS     := $(wildcard common/env_real*.c common/env_sim*.c)
SUPPORT  := $(wildcard tests/support/*.c)
SAMPLES  := $(wildcard tests/proto/*.proto)
TEST_C    = $(wildcard tests/$(1)/*.c)
PROGRAMS  = $(patsubst %.c,$(BUILD)/%,$(call TEST_C,$(1)))
SCRIPTS   = $(shell find tests/$(1) -maxdepth 1 -type f -executable 2>/dev/null | sort)

obj       = $(patsubst %.c,$(BUILD)/obj/%.o,$(1))
lib_c     = $(filter-out $(ENVS) $(1)/main.c,$(wildcard $(1)/*.c))
lib       = $(BUILD)/lib/lib$(1).a
OUR_LIBS := $(foreach l,$(LIBS) proto,$(call lib,$(l)))
UNIT     := $(call PROGRAMS,unit)
SIM      := $(call PROGRAMS,sim)
SYSTEM   := $(call PROGRAMS,system)
BENCHES  := $(call PROGRAMS,bench)
# Peers are built where their libraries are: deploy/install-deps --bench.
PEERS    := $(if $(wildcard /usr/include/glib-2.0/glib.h),$(BUILD)/tests/bench/cache_glib) \
	$(if $(wildcard /usr/include/spdlog/spdlog.h),$(BUILD)/tests/bench/log_spdlog)
GRPC     := $(if $(wildcard /usr/include/grpcpp/grpcpp.h /usr/local/include/grpcpp/grpcpp.h),$(BUILD)/tests/bench/rpc_grpc)
FUZZERS  := $(call PROGRAMS,fuzz)
CLIENTS  := $(call PROGRAMS,client)
BINS     := $(SERVICES:%=$(BUILD)/bin/%) $(BUILD)/bin/loquat $(BUILD)/bin/luatest
SOURCES  := $(wildcard */*.c deploy/*/*.c tests/*/*.c)

.PHONY: all tests run test lint format reference bench fuzz sanitize soak clean help unit_programs bench_programs
.DELETE_ON_ERROR:
.SECONDARY:
all: $(BINS) $(OUR_LIBS) build/loquat.desc compile_commands.json  ## the programs (default)
tests: $(UNIT) $(SIM) $(SYSTEM) $(CLIENTS) $(BENCHES)  ## the test programs, without running them
unit_programs: $(UNIT)
bench_programs: $(BENCHES) $(GRPC) $(PEERS)

# ---- packages: looked at once per change of the list here, and at each `make run` and `make test`
build/.deps: deploy/install-deps
	@deploy/install-deps && mkdir -p build && touch $@

# ---- generated
$(GEN)/%.pb-c.c $(GEN)/%.pb-c.h: %.proto | build/.deps
	@echo "  PROTO $<"; mkdir -p $(GEN) && protoc-c --c_out=$(GEN) -I. -I/usr/include $<
# Debian ships no C of protobuf's own descriptor.proto; files with our method options include it.
$(GEN)/google/protobuf/descriptor.pb-c.c $(GEN)/google/protobuf/descriptor.pb-c.h: | build/.deps
	@mkdir -p $(GEN) && protoc-c --c_out=$(GEN) -I/usr/include /usr/include/google/protobuf/descriptor.proto
# nanopb is the reference our hand-written envelope code is tested against.
$(GEN)/nanopb/%.pb.c $(GEN)/nanopb/%.pb.h: %.proto | build/.deps
	@echo "  NANOPB $<"; mkdir -p $(GEN)/nanopb && protoc --nanopb_out=$(GEN)/nanopb -I. -I/usr/include $<
# What protobuf-c's code drops (method kinds, comments) is read from this at run time.
build/loquat.desc: $(PROTOS) | build/.deps
	@$(if $(PROTOS),protoc -I. -I/usr/include --include_imports --include_source_info -o $@ $(PROTOS),: > $@)
build/tests.desc: $(SAMPLES) $(PROTOS) | build/.deps
	@protoc -I. -I/usr/include --include_imports -o $@ $(SAMPLES) $(PROTOS)
compile_commands.json: Makefile $(sort $(dir $(SOURCES)))
	@{ sep='['; for f in $(SOURCES); do printf '%s{"directory": "%s", "file": "%s", "command": "%s"}' "$$sep" \
	'$(CURDIR)' "$$f" "cc $(CPPFLAGS) $(CFLAGS) $(WARN) -c $$f"; sep=",\n"; done; \
	[ "$$sep" != '[' ] || printf '['; echo ']'; } | sed 's/\\n/\n/g' > $@

# ---- one rule for objects, one for libraries, one for programs
# A call runs through most of these in a third of a microsecond: inlining more of them takes a tenth off a once-call.
$(call obj,$(wildcard rpc/*.c)): CFLAGS += $(if $(SAN),,-O3)
$(BUILD)/obj/%.o: %.c | $(GEN_C) build/.deps
	@echo "  CC    $<"; mkdir -p $(@D) && $(CC) $(CPPFLAGS) $(CFLAGS) $(WARN) -MMD -MP -c -o $@ $<
$(BUILD)/obj/gen/%.o: $(GEN)/%.c | $(GEN_C) build/.deps
	@mkdir -p $(@D) && $(CC) $(CPPFLAGS) -I$(GEN)/nanopb $(CFLAGS) -MMD -MP -c -o $@ $<

# (a folder's own time changes when a file comes or goes: then the library is made anew)
define library
$(call lib,$(1)): $(2) $(wildcard $(3)) | build/.deps
	@mkdir -p $$(@D) && rm -f $$@ && ar rcsD $$@ $(2)
endef
$(foreach l,$(LIBS),$(eval $(call library,$(l),$(call obj,$(call lib_c,$(l))),$(l))))
$(foreach e,env_real env_sim,$(eval $(call library,$(e),$(call obj,$(wildcard common/$(e)*.c)),common)))
$(eval $(call library,proto,$(GEN_C:$(GEN)/%.c=$(BUILD)/obj/gen/%.o),proto))
$(eval $(call library,nanopb,$(NANOPB:$(GEN)/%.c=$(BUILD)/obj/gen/%.o),))
$(eval $(call library,support,$(call obj,$(SUPPORT)) $(SAMPLES:%.proto=$(BUILD)/obj/gen/%.pb-c.o),tests/support))

CORE := $(foreach l,common rpc proto env_real,$(call lib,$(l)))
link  = @echo "  LD    $@"; mkdir -p $(@D) && $(CC) $(CFLAGS) $(LDFLAGS) -o $@ $(filter %.o,$^) \
	-Wl,--start-group $(filter %.a,$^) -Wl,--end-group $(1) $(SYSLIBS)
.SECONDEXPANSION:
$(SERVICES:%=$(BUILD)/bin/%): $(BUILD)/bin/%: $(BUILD)/obj/%/main.o $$(call lib,$$*) $(CORE)
	$(link)
$(BUILD)/bin/loquat: $(call obj,$(wildcard deploy/loquat/*.c)) $(call lib,dbwriter) $(CORE)
	$(link)
# The runner of scripts' tests: the services that have Lua, the simulation's tables, and in place of what lies outside
# of a worker the functions of deploy/luatest/outside.c.
SCRIPTED := $(filter $(SERVICES),$(patsubst %/lua,%,$(wildcard */lua)))
OUTSIDE  := $(sort $(shell grep -o '__wrap_[a-zA-Z_]*' deploy/luatest/outside.c))
$(BUILD)/obj/deploy/luatest/services.o: CPPFLAGS += -DLUATEST_SERVICES='$(foreach s,$(SCRIPTED),X($s))'
$(BUILD)/obj/deploy/luatest/services.o: $(SCRIPTED:%=%/main.c)
$(BUILD)/bin/luatest: $(call obj,$(wildcard deploy/luatest/*.c) $(foreach p,db db_rows db_change expr schema sql sql_stmt table,common/env_sim_$(p).c)) \
	$(foreach s,$(SCRIPTED),$(call lib,$(s))) $(CORE)
	$(call link,$(OUTSIDE:__wrap_%=-Wl$(comma)--wrap=%))
TEST_LIBS := $(OUR_LIBS) $(call lib,support) $(call lib,nanopb)
$(BUILD)/tests/sim/reload: $(call obj,$(foreach p,reload reload_passed reload_watch,deploy/loquat/$(p).c))
$(BUILD)/tests/sim/%: $(BUILD)/obj/tests/sim/%.o $(TEST_LIBS) $(call lib,env_sim)
	$(call link,-lcheck -lsubunit -lrt $(SIM_LDFLAGS))
$(BUILD)/tests/fuzz/%: $(BUILD)/obj/tests/fuzz/%.o $(TEST_LIBS) $(call lib,env_real)
	$(call link,-fsanitize=fuzzer $(patsubst __wrap_%,-Wl$(comma)--wrap=%,$(sort $(shell grep -o '__wrap_[a-z_]*' tests/fuzz/$*.c))))
$(BUILD)/tests/%: $(BUILD)/obj/tests/%.o $(TEST_LIBS) $(call lib,env_real)
	$(call link,-lcheck -lsubunit -lrt -lprotobuf-nanopb)
$(GEN)/grpc/%.grpc.pb.cc: %.proto | build/.deps
	@mkdir -p $(GEN)/grpc && protoc -I. --cpp_out=$(GEN)/grpc --grpc_out=$(GEN)/grpc \
	--plugin=protoc-gen-grpc="$$(command -v grpc_cpp_plugin)" $<
$(BUILD)/tests/bench/cache_glib: tests/bench/peers/cache_glib.c tests/bench/pairs.h
	@echo "  CC    $<"; mkdir -p $(@D) && $(CC) $(CFLAGS) -I. -o $@ $< $$(pkg-config --cflags --libs glib-2.0)
$(BUILD)/tests/bench/log_spdlog: tests/bench/peers/log_spdlog.cc tests/bench/log_load.h tests/bench/core.h
	@echo "  CXX   $<"; mkdir -p $(@D) && $(CXX) -O2 -I. -DSPDLOG_COMPILED_LIB -o $@ $< -lspdlog -lfmt -lpthread
$(BUILD)/tests/bench/rpc_grpc: tests/bench/rpc_grpc.cc tests/bench/rpc_load.h $(GEN)/grpc/tests/bench/rpc_grpc.grpc.pb.cc
	@echo "  CXX   $<"; mkdir -p $(@D) && $(CXX) -O2 -I. -I$(GEN)/grpc -o $@ $(filter %.cc,$^) \
	$(GEN)/grpc/tests/bench/rpc_grpc.pb.cc -Wl,--copy-dt-needed-entries -lgrpc++ -lprotobuf -lpthread
# tests alone see nanopb's headers
$(BUILD)/obj/tests/%.o: CPPFLAGS += -I$(GEN)/nanopb
$(call obj,$(wildcard tests/*/*.c)): | $(NANOPB) $(SAMPLES:%.proto=$(GEN)/%.pb-c.c) build/tests.desc

# ---- the things people type
run: ## install what is missing, build, start the whole cluster here
	@deploy/install-deps
	@$(MAKE) -s all
	@exec build/bin/loquat up

RUN := tests/run.sh
test: ## install what is missing, build, lint and run every test
	@$(RUN) begin
	@deploy/install-deps --test || true # what is truly absent is then skipped, or fails by its name
	@$(RUN) step build $(MAKE) -k all tests
	@$(RUN) run lint -t 900 $(call SCRIPTS,lint)
	@$(RUN) run unit -t 900 $(UNIT)
	@$(RUN) step build-asan $(MAKE) -k BUILD=build/asan SAN=address,undefined unit_programs
	@$(RUN) run asan -t 1200 $(UNIT:$(BUILD)/%=build/asan/%)
	@$(RUN) run sim -t 1500 $(SIM)
	@$(RUN) run lua -t 900 $(call SCRIPTS,lua)
	@$(RUN) run model -t 900 $(call SCRIPTS,model)
	@$(RUN) run system -1 -t 1200 $(SYSTEM) $(call SCRIPTS,system)
	@$(RUN) run compat -1 -t 900 $(call SCRIPTS,compat)
	@$(RUN) run browser -1 -t 900 $(call SCRIPTS,browser)
	@$(RUN) sum

lint: $(OUR_LIBS) $(NANOPB) $(SERVICES:%=$(BUILD)/obj/%/main.o) ## layers, seam, format, static checks, Lua
	@$(RUN) begin
	@$(RUN) run lint -t 900 $(call SCRIPTS,lint)
	@$(RUN) sum

reference: all ## write docs/configuration.md anew, from what the programs know
	@docs/keys.sh >build/configuration.md && mv build/configuration.md docs/configuration.md

format: ## rewrite the C sources in the house style
	@clang-format -i $(SOURCES) $(wildcard */*.h deploy/*/*.h tests/*/*.h)

BENCH ?=
bench: ## every figure against its limit; BENCH=group for one
	@deploy/install-deps --bench
	@$(MAKE) all bench_programs
	@tests/bench/run $(BENCH)

FUZZ_S ?= 30
fuzz: ## each parser against libFuzzer, FUZZ_S seconds each (30)
	@deploy/install-deps --fuzz
	@$(MAKE) BUILD=build/fuzz SAN=fuzzer-no-link,address,undefined CC=clang $(FUZZERS:$(BUILD)/%=build/fuzz/%)
	@for f in $(FUZZERS:$(BUILD)/%=build/fuzz/%); do first=tests/fuzz/corpus/$${f##*/}; mkdir -p $$f.corpus; \
		$$f -max_total_time=$(FUZZ_S) -timeout=5 -artifact_prefix=$$f. $$f.corpus $$(ls -d $$first 2>/dev/null) || exit 1; done

sanitize: ## the unit tests under ASan+UBSan, then under TSan
	@deploy/install-deps --test
	@$(RUN) begin
	@$(RUN) step build-asan $(MAKE) -k BUILD=build/asan SAN=address,undefined unit_programs
	@$(RUN) run asan -t 1200 $(UNIT:$(BUILD)/%=build/asan/%)
	@$(RUN) step build-tsan $(MAKE) -k BUILD=build/tsan SAN=thread unit_programs
	@$(RUN) run tsan -t 1500 $(UNIT:$(BUILD)/%=build/tsan/%)
	@$(RUN) sum

SOAK_S ?= 1800
# Each program of the simulation takes all cores and an equal part of SOAK_S.
soak: all $(SIM) $(CLIENTS) $(BUILD)/tests/bench/loadgen $(BUILD)/tests/system/campaign $(BUILD)/tests/system/storm ## the simulation on fresh seeds for SOAK_S seconds (1800), then long system tests
	@$(RUN) begin
	@SOAK_S=$$(($(SOAK_S) / $(words $(SIM)))) $(RUN) run soak -1 -t $$(($(SOAK_S) / $(words $(SIM)) + 300)) $(SIM)
	@OUTAGE_S=20 $(RUN) run soak -t 240 tests/system/outage tests/system/money
	@TRANSFERS_S=240 TRANSFERS_CALLS=100000 $(RUN) run soak -t 1200 tests/system/transfers
	@RELOADS=50 RELOAD_PLAYERS=2000 RELOAD_RATE=1 RELOAD_S=90 $(RUN) run soak -t 600 tests/system/reload
	@VILLAIN_PLAYERS=200 VILLAIN_S=120 VILLAIN_RATIO=150 $(RUN) run soak -t 400 tests/system/villain
	@ATTACK_PLAYERS=2000 ATTACK_S=30 ATTACK_ROUNDS=5 ATTACK_RATIO=150 $(RUN) run soak -t 1200 tests/system/attack
	@UPGRADE_PLAYERS=2000 UPGRADE_ROUNDS=10 UPGRADE_S=60 $(RUN) run soak -t 300 tests/system/upgrade
	@CAMPAIGN_ROUNDS=240 CAMPAIGN_AWAY_S=60 $(RUN) run soak -t 1500 $(BUILD)/tests/system/campaign
	@STORM_MEMBERS=10000 STORM_ARRIVE_MS=5000 STORM_RATE=500 $(RUN) run soak -t 300 $(BUILD)/tests/system/storm
	@$(RUN) sum

clean: ## remove build/ (var/, the cluster's data, stays)
	@rm -rf build compile_commands.json
help: ## this list
	@awk -F':.*## ' '/^[a-z_]+:.*## /{printf "  make %-10s %s\n", $$1, $$2}' Makefile

-include $(shell find $(BUILD)/obj -name '*.d' 2>/dev/null)
