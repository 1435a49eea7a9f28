# regolith: one C program that runs many Lua workflow scripts, each with sandboxes of its own.
#
#   make          build build/regolith                make run    install what is missing, build, run an example
#   make test     the same, then every test           make lint   formatting, warnings, include rules
#   make bench    timings against named peers         make asan   the tests under ASan and UBSan (make tsan: TSan)
#   make bench-page JSON=build/bench.json  draws docs/bench.md and its plot again
#   make fuzz     the readers of foreign bytes under libFuzzer (FUZZ_SECONDS=30)
#   make soak     many clients of one server for SOAK_SECONDS (600)
#   make crowd    1,000 hostile scripts before 100 innocent ones: what those lose by it
#   make deps     install Debian packages that are missing
#   make test-vm  what depends on control groups, in a small virtual machine with cgroup v2
#   make test-images  Python, pip, git, gcc and Node in an image of 100 MB of Debian packages
#   make install PREFIX=~/.local [DESTDIR=]           make uninstall, make clean
#
# LUA=lua5.4 names the pkg-config module of the Lua to build with (5.4.8 or later closes known faults).
# FLAVOUR=release|debug|asan|tsan says how to build; each has a folder of its own.

VERSION := 0.1.0
FLAVOUR ?= release
LUA     ?= lua5.4
PREFIX  ?= /usr/local
CC      := $(if $(filter default,$(origin CC)),gcc,$(CC))

BUILD_release := build
BUILD_debug   := build/debug
BUILD_asan    := build/asan
BUILD_tsan    := build/tsan
BUILD := $(BUILD_$(FLAVOUR))
ifeq ($(BUILD),)
$(error FLAVOUR=$(FLAVOUR) is none of: release debug asan tsan)
endif

FLAVOUR_release := -O2
FLAVOUR_debug   := -O1 -DREGOLITH_DEBUG
FLAVOUR_asan    := -O1 -DREGOLITH_DEBUG -fsanitize=address,undefined -fno-sanitize-recover=all -fno-omit-frame-pointer
FLAVOUR_tsan    := -O1 -DREGOLITH_DEBUG -fsanitize=thread
SANITIZE := $(filter -fsanitize=%,$(FLAVOUR_$(FLAVOUR)))

WARN := -Wall -Wextra -Wshadow -Wstrict-prototypes -Wmissing-prototypes -Wvla -Wformat=2 -Wundef \
        -Wswitch-enum -Wwrite-strings $(if $(CI),-Werror)
PKGS := $(LUA) libuv libcjson
override CFLAGS += -std=gnu11 -g $(FLAVOUR_$(FLAVOUR)) $(WARN) -fPIC -fvisibility=hidden
override CPPFLAGS += -Isrc -I$(BUILD)/gen -D_GNU_SOURCE -DREGOLITH_VERSION='"$(VERSION)"' \
                     $(shell pkg-config --cflags $(PKGS) 2>/dev/null)
# msgpack is linked statically: the binary maps libc, libuv, liblua and cJSON, and nothing else.
override LDLIBS += $(shell pkg-config --libs $(PKGS) 2>/dev/null) -l:libmsgpackc.a -lm -lpthread
override LDFLAGS += $(SANITIZE) -Wl,--as-needed

# Parts: shared objects that the binary opens on first use (src/core/part.c says how and why). Each has its
# own sources and libraries, and what it needs of base and core from the archive.
PARTS          := image http edit tls sqlite slirp
PART_SRC_image := $(patsubst %,src/%.c,net/httpc net/url image/auth image/digest image/export image/fetch image/folders \
                  image/image_part image/import image/layer image/list image/pack image/pull image/push image/tree image/unpack \
                  image/verify)
PART_PKG_image := libcurl libarchive libcrypto
PART_SRC_http  := src/net/httpc.c src/net/url.c src/net/http_part.c
PART_PKG_http  := libcurl
PART_SRC_tls   := src/net/tls_part.c
PART_PKG_tls   := libssl libcrypto
PART_SRC_sqlite := src/db/sqlite_part.c
PART_PKG_sqlite := sqlite3
PART_SRC_slirp := src/engine/local/slirp_part.c
PART_LIB_slirp := -lslirp # its .pc file wants all of glib's headers
PART_SRC_edit  := src/cli/edit_part.c
PART_PKG_edit  := libedit
PART_SRC       := $(foreach p,$(PARTS),$(PART_SRC_$(p)))
comma          := ,
part_obj        = $(patsubst %.c,$(BUILD)/%.o,$(PART_SRC_$(1)))
part_libs       = $(PART_LIB_$(1)) $(if $(PART_PKG_$(1)),$(shell pkg-config --libs $(PART_PKG_$(1)) 2>/dev/null))

# Sources are found, not listed. main.c is cli's; everything else is one archive that the tests link too.
# spec/host is the program that runs the Lua specs.
SRC      := $(sort $(shell find src -name '*.c' ! -name '*_gen.c'))
LIB_OBJ  := $(patsubst %.c,$(BUILD)/%.o,$(filter-out src/cli/main.c $(PART_SRC),$(SRC)))
LUA_SRC  := $(sort $(shell find lua -name '*.lua') $(wildcard web/*.html web/*.json))
SPEC_HOST := $(BUILD)/spec/host/main.o $(BUILD)/spec/host/proc.o
C_SPECS  := $(patsubst spec/c/%.c,$(BUILD)/spec/%,$(sort $(wildcard spec/c/test_*.c)))

PACKAGES_BUILD := gcc make pkg-config libc6-dev lua5.4 liblua5.4-dev libuv1-dev libcjson-dev libmsgpack-dev libseccomp-dev \
                  libcurl4-openssl-dev libarchive-dev libssl-dev libedit-dev libsqlite3-dev libslirp-dev
PACKAGES_TEST  := lua-busted lua-check clang clang-format clang-tidy cppcheck valgrind libclang-rt-14-dev \
                  shellcheck uidmap procps iproute2 bubblewrap python3 chromium curl openssl python3-requests python3-jsonschema

.PHONY: all run test test-vm test-images lint bench bench-page asan tsan install uninstall deps deps-test clean format compile-commands
.DELETE_ON_ERROR:
.SECONDARY:

# One line a step; V=1 shows the commands.
Q   := $(if $(V),,@)
say  = $(if $(V),,@printf '  %-5s %s\n' $(1) $(2))

all: $(BUILD)/regolith $(PARTS:%=$(BUILD)/parts/%.so)

$(BUILD)/regolith: $(BUILD)/src/cli/main.o $(BUILD)/libregolith.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $< -Wl,--whole-archive $(BUILD)/libregolith.a -Wl,--no-whole-archive $(LDLIBS)

$(BUILD)/libregolith.a: $(LIB_OBJ) $(BUILD)/gen/embedded.o
	$(call say,AR,$@)
	@rm -f $@
	$(Q)ar rcs $@ $^

.SECONDEXPANSION:
$(BUILD)/parts/%.so: $$(call part_obj,$$*) $(BUILD)/libregolith.a
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$(Q)$(CC) -shared $(LDFLAGS) -Wl,--exclude-libs,ALL $(if $(SANITIZE),,-Wl$(comma)-z$(comma)defs) -o $@ $(call part_obj,$*) $(BUILD)/libregolith.a \
	  $(call part_libs,$*) $(LDLIBS)

$(BUILD)/%.o: %.c
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -MMD -MP -c -o $@ $<

# The seccomp program is made here, so that the binary needs no libseccomp.
$(BUILD)/seccomp_gen: src/engine/local/seccomp_gen.c src/engine/local/seccomp_table.def
	@mkdir -p $(@D)
	$(call say,GEN,$@)
	$(Q)$(CC) -std=gnu11 -O1 $(WARN) -Isrc -D_GNU_SOURCE -o $@ $< -lseccomp

$(BUILD)/gen/seccomp_program.h: $(BUILD)/seccomp_gen
	@mkdir -p $(@D)
	$(Q)$< >$@

$(BUILD)/src/engine/local/walls.o: $(BUILD)/gen/seccomp_program.h

# The Lua that the binary carries: lua/regolith/task.lua is the module "regolith.task".
$(BUILD)/gen/embedded.S: tools/embed.sh $(LUA_SRC)
	@mkdir -p $(@D)
	$(call say,EMBED,lua)
	$(Q)sh tools/embed.sh $(LUA_SRC) >$@

$(BUILD)/gen/embedded.o: $(BUILD)/gen/embedded.S $(LUA_SRC)
	$(call say,AS,$@)
	$(Q)$(CC) -c -o $@ $<

# Tests of what is in a part link its objects.
$(BUILD)/spec/test_image_%: spec/c/test_image_%.c $(call part_obj,image) $(BUILD)/libregolith.a spec/c/test.h
	@mkdir -p $(@D)
	$(call say,CC,$<)
	$(Q)$(CC) $(CPPFLAGS) -Ispec/c $(CFLAGS) $(LDFLAGS) -o $@ $< $(call part_obj,image) $(BUILD)/libregolith.a \
	  $(call part_libs,image) $(LDLIBS)

# What keeps state opens the part beside it.
$(BUILD)/spec/test_store $(BUILD)/spec/test_ledger $(BUILD)/spec/test_ledger_crash $(BUILD)/spec/test_journal: | $(BUILD)/parts/sqlite.so

$(BUILD)/spec/%: spec/c/%.c $(BUILD)/libregolith.a $(wildcard spec/c/*.h)
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$(Q)$(CC) $(CPPFLAGS) -Ispec/c $(CFLAGS) $(LDFLAGS) -o $@ $< $(BUILD)/libregolith.a $(LDLIBS)

# Runs a command and fails it when a process of it is left over.
$(BUILD)/regolith-guard: spec/host/guard.c
	@mkdir -p $(@D)
	$(call say,LINK,$@)
	$(Q)$(CC) $(CPPFLAGS) $(CFLAGS) -o $@ $<

# Runs the Lua specs: busted, inside our own script runtime.
$(BUILD)/regolith-spec: $(SPEC_HOST) $(BUILD)/libregolith.a
	$(call say,LINK,$@)
	$(Q)$(CC) $(LDFLAGS) -o $@ $(SPEC_HOST) $(BUILD)/libregolith.a $(LDLIBS)

run: deps
	@$(MAKE) --no-print-directory all
	$(BUILD)/regolith run examples/hello.lua

test: deps deps-test
	@$(MAKE) --no-print-directory all spec-programs
	sh tools/test.sh $(BUILD)

.PHONY: spec-programs
# (The objects are named so that the rule for the tests of parts is seen to apply.)
spec-programs: $(foreach p,$(PARTS),$(call part_obj,$(p))) $(C_SPECS) $(BUILD)/regolith-guard $(BUILD)/regolith-spec

# Python, pip, git, gcc and Node in an image of Debian packages, which are fetched once.
test-images: deps deps-test
	@$(MAKE) --no-print-directory all spec-programs
	sh tools/test.sh $(BUILD) image/programs

PACKAGES_VM := qemu-system-x86 busybox-static cpio dpkg util-linux
test-vm: deps
	@sh tools/deps.sh $(PACKAGES_VM)
	@$(MAKE) --no-print-directory all spec-programs
	sh spec/vm/run.sh $(BUILD)

asan:
	@$(MAKE) --no-print-directory FLAVOUR=asan test
tsan:
	@$(MAKE) --no-print-directory FLAVOUR=tsan test

# Feeds the readers of foreign bytes with whatever clang's fuzzer finds. A new one: spec/fuzz/fuzz_NAME.c.
FUZZ_SECONDS ?= 30
FUZZERS := $(patsubst spec/fuzz/%.c,build/fuzz/%,$(wildcard spec/fuzz/fuzz_*.c))
FUZZ_SRC := $(wildcard src/base/*.c src/wire/*.c)

.PHONY: fuzz
fuzz: deps deps-test $(FUZZERS)
	@for f in $(FUZZERS); do echo "$$f"; mkdir -p $$f.corpus; \
	  $$f -max_total_time=$(FUZZ_SECONDS) -print_final_stats=1 -artifact_prefix=build/fuzz/ $$f.corpus || exit 1; done

FUZZ_IMAGE_SRC := $(wildcard src/base/*.c src/image/*.c src/net/*.c) src/core/loop.c src/core/part.c src/core/work.c
build/fuzz/fuzz_image_%: spec/fuzz/fuzz_image_%.c $(FUZZ_IMAGE_SRC)
	@mkdir -p $(@D)
	$(call say,FUZZ,$@)
	$(Q)clang $(CPPFLAGS) -std=gnu11 -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
	  -o $@ $< $(FUZZ_IMAGE_SRC) $(call part_libs,image) -luv -lcjson -lm

FUZZ_NET_SRC := $(wildcard src/base/*.c) $(patsubst %,src/engine/local/net_%.c,dns flows frame policy streams) src/wire/destination.c
build/fuzz/fuzz_net: spec/fuzz/fuzz_net.c $(FUZZ_NET_SRC)
	@mkdir -p $(@D)
	$(call say,FUZZ,$@)
	$(Q)clang $(CPPFLAGS) -std=gnu11 -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
	  -o $@ $< $(FUZZ_NET_SRC) -lcjson -lm

FUZZ_FRAME_SRC := $(FUZZ_SRC) $(patsubst %,src/core/%.c,channel loop op) src/host/worker.c
build/fuzz/fuzz_frame: spec/fuzz/fuzz_frame.c $(FUZZ_FRAME_SRC)
	@mkdir -p $(@D)
	$(call say,FUZZ,$@)
	$(Q)clang $(CPPFLAGS) -std=gnu11 -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
	  -o $@ $< $(FUZZ_FRAME_SRC) -luv -lcjson -l:libmsgpackc.a -lm

FUZZ_RATE_SRC := $(FUZZ_SRC) $(wildcard src/db/d*.c src/db/s[ct]*.c) $(patsubst %,src/%.c,ledger/entries ledger/keys core/loop core/part)
build/fuzz/fuzz_rate: spec/fuzz/fuzz_rate.c $(FUZZ_RATE_SRC)
	@mkdir -p $(@D)
	$(call say,FUZZ,$@)
	$(Q)clang $(CPPFLAGS) -std=gnu11 -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
	  -o $@ $< $(FUZZ_RATE_SRC) -luv -lcjson -l:libmsgpackc.a -lm

build/fuzz/%: spec/fuzz/%.c $(FUZZ_SRC)
	@mkdir -p $(@D)
	$(call say,FUZZ,$@)
	$(Q)clang $(CPPFLAGS) -std=gnu11 -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
	  -o $@ $< $(FUZZ_SRC) -lcjson -l:libmsgpackc.a -lm

# Fuzzers of one file that stands for itself.
FUZZ_ONE_http1  := src/net/http1.c
FUZZ_ONE_events := src/engine/remote/events.c
build/fuzz/fuzz_http1 build/fuzz/fuzz_events: build/fuzz/fuzz_%: spec/fuzz/fuzz_%.c $(FUZZ_SRC) $$(FUZZ_ONE_$$*)
	@mkdir -p $(@D)
	$(call say,FUZZ,$@)
	$(Q)clang $(CPPFLAGS) -std=gnu11 -g -O1 -fsanitize=fuzzer,address,undefined -fno-sanitize-recover=all \
	  -o $@ $< $(FUZZ_SRC) $(FUZZ_ONE_$*) -lcjson -l:libmsgpackc.a -lm

# 2,000 clients of one server over their whole life-cycle, for SOAK_SECONDS.
SOAK_SECONDS ?= 600
SOAK_CLIENTS ?= 2000
.PHONY: soak
soak: deps deps-test all
	sh tools/soak.sh $(BUILD) $(SOAK_SECONDS) $(SOAK_CLIENTS)

# What 1,000 hostile scripts cost 100 innocent ones beside them (wanted: 1.5 times their time alone, at most).
CROWD ?= 1000:100
.PHONY: crowd
crowd: deps deps-test
	@$(MAKE) --no-print-directory all spec-programs
	CROWD=$(CROWD) REGOLITH_BUILD=$(BUILD) $(BUILD)/regolith-guard -t 1200 $(BUILD)/regolith-spec spec/e2e/crowd_spec.lua

bench: all
	sh tools/bench.sh $(BUILD)
# The page and the plot, drawn again.
JSON ?= $(BUILD)/bench.json
bench-page: all
	$(BUILD)/regolith run --quiet --trust --allow-read $(dir $(JSON)) --allow-write docs spec/bench/report.lua -- \
	  draw $(JSON) docs/bench.md docs/bench.svg

lint: deps deps-test
	sh tools/lint.sh

format:
	clang-format -i $$(git ls-files '*.c' '*.h')

deps:
	@sh tools/deps.sh $(PACKAGES_BUILD)
deps-test:
	@sh tools/deps.sh $(PACKAGES_TEST)

# Everything below one PREFIX; DESTDIR is for packagers. Scripts' language servers find the types below share/regolith.
BINDIR   = $(DESTDIR)$(PREFIX)/bin
SHAREDIR = $(DESTDIR)$(PREFIX)/share
LIBDIR   = $(DESTDIR)$(PREFIX)/lib/regolith
install: all
	install -D -m 755 $(BUILD)/regolith $(BINDIR)/regolith
	for p in $(PARTS); do install -D -m 755 $(BUILD)/parts/$$p.so $(LIBDIR)/$$p.so || exit 1; done
	install -D -m 644 docs/regolith.1 $(SHAREDIR)/man/man1/regolith.1
	install -D -m 644 completions/regolith.bash $(SHAREDIR)/bash-completion/completions/regolith
	install -D -m 644 completions/_regolith $(SHAREDIR)/zsh/site-functions/_regolith
	install -D -m 644 completions/regolith.fish $(SHAREDIR)/fish/vendor_completions.d/regolith.fish
	install -d $(DESTDIR)$(PREFIX)/lib/systemd/system
	sed 's|/usr/local/bin|$(PREFIX)/bin|' contrib/regolith.service >$(DESTDIR)$(PREFIX)/lib/systemd/system/regolith.service
	install -d $(SHAREDIR)/regolith/types
	install -m 644 lua/types/*.d.lua $(SHAREDIR)/regolith/types/

# Folders that may be empty then, inner ones first; those of a system are its own.
EMPTIED := $(addprefix share/,regolith bash-completion/completions bash-completion zsh/site-functions zsh \
             fish/vendor_completions.d fish) lib/systemd/system lib/systemd
EMPTIED_TOO := share/man/man1 share/man share lib bin
uninstall:
	rm -rf $(LIBDIR)
	rm -f $(BINDIR)/regolith $(SHAREDIR)/man/man1/regolith.1
	rm -f $(SHAREDIR)/bash-completion/completions/regolith $(SHAREDIR)/zsh/site-functions/_regolith
	rm -f $(SHAREDIR)/fish/vendor_completions.d/regolith.fish
	rm -rf $(SHAREDIR)/regolith/types
	rm -f $(DESTDIR)$(PREFIX)/lib/systemd/system/regolith.service
	cd $(DESTDIR)$(PREFIX) && rmdir $(EMPTIED) $(if $(filter /usr /usr/local,$(PREFIX)),,$(EMPTIED_TOO)) 2>/dev/null || true

clean:
	rm -rf build

-include $(LIB_OBJ:.o=.d) $(PART_SRC:%.c=$(BUILD)/%.d) $(SPEC_HOST:.o=.d) $(BUILD)/src/cli/main.d
