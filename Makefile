# Builds libmilter and what belongs to it; `make help` lists what can be made.

# Where `make install` puts things; all below DESTDIR.
PREFIX ?= /usr/local
LIBDIR ?= $(PREFIX)/lib
INCLUDEDIR ?= $(PREFIX)/include
BINDIR ?= $(PREFIX)/bin
MANDIR ?= $(PREFIX)/share/man
BASHDIR ?= $(PREFIX)/share/bash-completion/completions
ZSHDIR ?= $(PREFIX)/share/zsh/site-functions
FISHDIR ?= $(PREFIX)/share/fish/vendor_completions.d
DESTDIR ?=

# The version in the name that programs ask the loader for. Debian's; Fedora has 1.0, Alpine 1.0.2, FreeBSD 6.
SOVERSION ?= 1.0.1

CARGO ?= cargo
CARGOFLAGS ?= --locked
CC ?= cc
CFLAGS ?= -O2 -g
INSTALL ?= install
OBJCOPY ?= objcopy

# Cargo's directory, and the profile to build: a package may prefer another one.
TARGET ?= $(or $(CARGO_TARGET_DIR),target)
PROFILE ?= release
# What may be left out of the library: `make FEATURES=` builds it without the endpoint for Prometheus.
FEATURES ?= metrics

# How many random sessions `make check-long` plays, and the seed of the first.
DIFF_SESSIONS ?= 1000000
DIFF_SEED ?= 1

# The engine's hand-over of work under a model checker, and how many orders of events `make check-long` tries.
MODEL = $(CARGO) test $(CARGOFLAGS) --target-dir $(TARGET) --lib --features model server::model
MODEL_RUNS ?= 50000

# Which processors `make check-arch` tests, by Debian's names for them.
ARCH ?= arm64 riscv64 s390x ppc64el armhf i386

# How long `make soak` lasts, and how many connections there are at a time.
SOAK_SECONDS ?= 1800
SOAK_SESSIONS ?= 256

# How long `make dashboard` lets filters work.
DASHBOARD_SECONDS ?= 180

# How many seconds each target of `make fuzz` runs.
FUZZ_SECONDS ?= 60
# And how many each of the five loads of `make sanitize` lasts.
SANITIZE_SECONDS ?= 6
# And how many random sessions it plays to the reference and to ours.
SANITIZE_SESSIONS ?= 2000

# What the archive of the sources is called.
NAME = libmilter-rs-$(shell sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -n 1)
SONAME = libmilter.so.$(SOVERSION)
# As milter.pc says it, whose prefix pkg-config can move.
BELOW_PREFIX = $(patsubst $(PREFIX)/%,$${prefix}/%,$(1))
BUILT = $(TARGET)/$(if $(filter dev,$(PROFILE)),debug,$(PROFILE))
# How cargo builds, whatever it builds.
BUILD = $(CARGOFLAGS) --profile $(PROFILE) --target-dir $(TARGET)
MANUAL = $(wildcard docs/man/*.[137])
EXAMPLES = add-header log-everything block-list edit-message
# The release of sendmail that this library stands for, as in Debian's milter.pc: packages ask for `milter >= 8.13`.
VERSION = 8.17.1.9
# What programs may have functions of their own by; with the shared library theirs win anyway.
UNDECLARED = mi_stop sm_errstring sm_strlcat sm_strlcat2 sm_strlcpy sm_strlcpyn
WARNINGS = -std=gnu11 -Wall -Wextra -Wpedantic -Werror

.PHONY: all library static-debug milter-send examples manual demo check check-arch check-arm64 check-musl check-rpm check-packages dist check-long soak dashboard fuzz sanitize deny deps filters header install uninstall clean help

all: library milter-send examples  ## the library in target/lib, milter-send, and the C examples

# The compiler's intermediate code, which Rust's standard library carries along and no linker of C programs can use.
LLVM_SECTIONS = .llvmbc .llvmcmd

# Makes the static library in a directory, with more options for objcopy. It is one object whose only names are the functions, so
# that it may stand beside another one that has Rust's standard library inside.
define STATIC_LIBRARY
	sed -n 's/^ \([a-z0-9_]*\)@.*/\1/p' docs/debian/libmilter1.0.1.symbols >$(1)/names
	$(LD) -r --gc-sections --force-group-allocation $$(sed 's/^/-u /' $(1)/names) $(BUILT)/libmilter.a -o $(1)/milter.o
	$(OBJCOPY) $(2) $(LLVM_SECTIONS:%=--remove-section=%) --keep-global-symbols=$(1)/names \
		$(UNDECLARED:%=--weaken-symbol=%) $(1)/milter.o
	rm -f $(1)/libmilter.a
	$(AR) rcsD $(1)/libmilter.a $(1)/milter.o
	rm $(1)/milter.o $(1)/names
endef

# C programs record the SONAME when they are linked and ask the loader for it.
library:  ## libmilter.so and libmilter.a
	LIBMILTER_SOVERSION=$(SOVERSION) \
		$(CARGO) rustc $(BUILD) --lib --no-default-features --features "$(FEATURES)" --crate-type cdylib,staticlib
	rm -rf $(TARGET)/lib
	mkdir -p $(TARGET)/lib
	cp $(BUILT)/libmilter.so $(TARGET)/lib/$(SONAME)
	ln -s $(SONAME) $(TARGET)/lib/libmilter.so
	$(call STATIC_LIBRARY,$(TARGET)/lib,--strip-unneeded)

# A debugger finds nothing about a static library but what the program has that it was linked into: so there is another one.
static-debug: override TARGET := $(TARGET)/static-debug
static-debug:  ## libmilter.a with debug information, in target/static-debug/lib: link with it to debug a filter
	CARGO_PROFILE_$(shell echo $(PROFILE) | tr a-z- A-Z_)_DEBUG=full \
		$(CARGO) rustc $(BUILD) --lib --no-default-features --features "$(FEATURES)" --crate-type staticlib
	mkdir -p $(TARGET)/lib
	$(call STATIC_LIBRARY,$(TARGET)/lib)

milter-send:  ## the program that plays a mail server, and completions of its options
	$(CARGO) build $(BUILD) --bin milter-send
	mkdir -p $(TARGET)/completions
	for shell in bash zsh fish; do \
		$(BUILT)/milter-send --completions $$shell >$(TARGET)/completions/$$shell || exit 1; done

examples: $(EXAMPLES:%=$(TARGET)/examples/%)  ## the filters of examples-c, in target/examples

$(TARGET)/examples/%: examples-c/%.c examples-c/arguments.h include/libmilter/mfapi.h include/libmilter/mfdef.h | library
	mkdir -p $(@D)
	$(CC) $(CFLAGS) $(WARNINGS) -pthread -Iinclude $< -o $@ -L$(TARGET)/lib -lmilter

# Pages that are not ours are linked where Debian shows them.
manual:  ## the manual pages as HTML, in target/api: needs mandoc
	rm -rf $(TARGET)/api
	mkdir -p $(TARGET)/api
	cd $(TARGET)/api && touch $(MANUAL:docs/man/%=%.html)
	cp $(MANUAL) $(TARGET)/api
	cd $(TARGET)/api && for page in $(notdir $(MANUAL)); do \
		mandoc -Thtml -O 'man=%N.%S.html;https://manpages.debian.org/%N.%S' $$page >$$page.html && rm $$page || exit 1; done
	cp $(TARGET)/api/libmilter.3.html $(TARGET)/api/index.html

demo: all  ## a filter of the examples changes a message, before your eyes
	@examples-c/demo $(TARGET)

deps:  ## what the tests need: Debian packages (as root) and sources
	@tests/install-packages

check: deps all  ## every test
	$(CARGO) test $(CARGOFLAGS) --target-dir $(TARGET)
	$(MODEL)

check-arch:  ## the library for other processors (ARCH="arm64 ..."), and C programs on it in an emulator, compared with Debian's there
	for arch in $(ARCH); do CARGO="$(CARGO)" CARGO_TARGET_DIR="$(abspath $(TARGET))" tests/platforms/run $$arch || exit 1; done

check-arm64:  ## check-arch for aarch64
	$(MAKE) check-arch ARCH=arm64

check-musl:  ## the library for musl, and C programs on it
	CARGO="$(CARGO)" CARGO_TARGET_DIR="$(abspath $(TARGET))" tests/platforms/run musl

check-packages: dist  ## the Debian packages, built twice (QUICK=1: once) and used as the README says, in chroots, as root: see tests/packages/run
	CARGO_TARGET_DIR="$(abspath $(TARGET))" tests/packages/run

# The same commit gives the same bytes, with the same versions of cargo, tar and xz.
dist:  ## the sources of the last commit with all crates, to be built without the network: target/libmilter-rs-VERSION.tar.xz
	@git diff --quiet HEAD || echo "what is not committed will not be in $(NAME).tar.xz" >&2
	rm -rf $(TARGET)/dist
	mkdir -p $(TARGET)/dist/$(NAME)/.cargo
	git archive --output=$(TARGET)/dist/sources.tar HEAD
	tar -C $(TARGET)/dist/$(NAME) -xf $(TARGET)/dist/sources.tar
	cd $(TARGET)/dist/$(NAME) && $(CARGO) vendor -q --locked vendor
	printf '%s\n' '[source.crates-io]' 'replace-with = "vendor"' '[source.vendor]' 'directory = "vendor"' \
		>$(TARGET)/dist/$(NAME)/.cargo/config.toml
	tar -C $(TARGET)/dist --format=gnu --sort=name --owner=0 --group=0 --numeric-owner --mode=u+rw,a+rX,go-w \
		--mtime=@$$(git log -1 --format=%ct) -cf $(TARGET)/dist/$(NAME).tar $(NAME)
	xz -T1 -6 $(TARGET)/dist/$(NAME).tar
	mv $(TARGET)/dist/$(NAME).tar.xz $(TARGET)/
	rm -r $(TARGET)/dist

check-rpm: dist  ## RPM packages of the last commit, built and looked into: see packaging/rpm/check
	CARGO_TARGET_DIR="$(abspath $(TARGET))" packaging/rpm/check "$(abspath $(TARGET))/rpm"

check-long: deps all  ## many orders of events, and a million random sessions on the reference and on ours (DIFF_SESSIONS, DIFF_SEED)
	LIBMILTER_DIFF_SESSIONS=$(DIFF_SESSIONS) LIBMILTER_DIFF_SEED=$(DIFF_SEED) \
		$(CARGO) test $(CARGOFLAGS) --release --target-dir $(TARGET) --test integration \
		differential::sessions_agree -- --exact --nocapture
	MODEL_RUNS=$(MODEL_RUNS) $(MODEL)

soak: deps all  ## endurance under mixed load, stops, and failing system calls (SOAK_SECONDS, SOAK_SESSIONS); a chart in target/soak.svg
	SOAK_SECONDS=$(SOAK_SECONDS) SOAK_SESSIONS=$(SOAK_SESSIONS) \
		$(CARGO) test $(CARGOFLAGS) --target-dir $(TARGET) --test integration -- soak:: chaos:: --test-threads 1 --nocapture

dashboard: deps all  ## docs/metrics/dashboard.svg, drawn anew: three minutes of load, with Prometheus (DASHBOARD_SECONDS)
	DASHBOARD_SECONDS=$(DASHBOARD_SECONDS) $(CARGO) test $(CARGOFLAGS) --target-dir $(TARGET) --test integration \
		dashboard::each_panel_shows_something -- --exact

fuzz:  ## random input for the library and milter-send, FUZZ_SECONDS for each target: see fuzz/run
	CARGO="$(CARGO)" fuzz/run $(FUZZ_SECONDS)

sanitize: deps  ## a filter under load, C tests, random sessions, with ThreadSanitizer and AddressSanitizer: see tests/sanitize/run
	for sanitizer in thread address; do CARGO="$(CARGO)" CC="$(CC)" CARGO_TARGET_DIR="$(abspath $(TARGET))" \
		tests/sanitize/run $$sanitizer $(SANITIZE_SECONDS) $(SANITIZE_SESSIONS) || exit 1; done

deny:  ## licences, duplicates and sources of the dependencies, with cargo-deny (cargo install --locked cargo-deny)
	$(CARGO) deny check licenses bans sources

filters: deps all  ## Debian's milters on our library, and a table of what they did
	rm -rf $(TARGET)/tmp/filters
	$(CARGO) test $(CARGOFLAGS) --target-dir $(TARGET) --test integration filters::; status=$$?; \
	printf '\n| filter | version | our library by | outcome | as on the reference |\n|---|---|---|---|---|\n'; \
	cat $(TARGET)/tmp/filters/*.md; exit $$status

# That test alone: others must not read a header that is half written.
header:  ## include/libmilter/*.h, made anew from src/ffi
	LIBMILTER_WRITE_HEADERS=1 $(CARGO) test $(CARGOFLAGS) --target-dir $(TARGET) --test integration \
		header::headers_are_what_the_sources_say -- --exact

# A program that is linked with -lmilter records $(SONAME); the other name is for the linker.
# It builds nothing: whoever installs, perhaps as root, need not have cargo.
install:  ## to $(DESTDIR)$(PREFIX), after `make`: library, headers, milter.pc, milter-send and what belongs to it
	@test -e $(TARGET)/lib/$(SONAME) || { echo "$(TARGET)/lib/$(SONAME) is missing: run make first" >&2; exit 1; }
	$(INSTALL) -d $(DESTDIR)$(LIBDIR)/pkgconfig $(DESTDIR)$(INCLUDEDIR)/libmilter $(DESTDIR)$(BINDIR) \
		$(DESTDIR)$(MANDIR)/man1 $(DESTDIR)$(MANDIR)/man3 $(DESTDIR)$(MANDIR)/man7 $(DESTDIR)$(BASHDIR) $(DESTDIR)$(ZSHDIR) $(DESTDIR)$(FISHDIR)
	$(INSTALL) -m 755 $(TARGET)/lib/$(SONAME) $(DESTDIR)$(LIBDIR)/
	ln -sf $(SONAME) $(DESTDIR)$(LIBDIR)/libmilter.so
	$(INSTALL) -m 644 $(TARGET)/lib/libmilter.a $(DESTDIR)$(LIBDIR)/
	$(INSTALL) -m 644 include/libmilter/mfapi.h include/libmilter/mfdef.h $(DESTDIR)$(INCLUDEDIR)/libmilter/
	printf '%s\n' 'prefix=$(PREFIX)' 'exec_prefix=$${prefix}' 'libdir=$(call BELOW_PREFIX,$(LIBDIR))' \
		'headers=$(call BELOW_PREFIX,$(INCLUDEDIR))' 'includedir=$(call BELOW_PREFIX,$(INCLUDEDIR))/libmilter' '' \
		'Name: milter' 'Description: Mail filter library, a replacement for sendmail libmilter' \
		'Version: $(VERSION)' 'Libs: -L$${libdir} -lmilter' 'Libs.private: -lpthread -lm -ldl' \
		'Cflags: -I$${includedir} -I$${headers}' >$(DESTDIR)$(LIBDIR)/pkgconfig/milter.pc
	chmod 644 $(DESTDIR)$(LIBDIR)/pkgconfig/milter.pc
	$(INSTALL) -m 755 $(BUILT)/milter-send $(DESTDIR)$(BINDIR)/
	$(INSTALL) -m 644 docs/man/*.1 $(DESTDIR)$(MANDIR)/man1/
	$(INSTALL) -m 644 docs/man/*.3 $(DESTDIR)$(MANDIR)/man3/
	$(INSTALL) -m 644 docs/man/*.7 $(DESTDIR)$(MANDIR)/man7/
	$(INSTALL) -m 644 $(TARGET)/completions/bash $(DESTDIR)$(BASHDIR)/milter-send
	$(INSTALL) -m 644 $(TARGET)/completions/zsh $(DESTDIR)$(ZSHDIR)/_milter-send
	$(INSTALL) -m 644 $(TARGET)/completions/fish $(DESTDIR)$(FISHDIR)/milter-send.fish

uninstall:  ## takes back what install has put there
	rm -f $(DESTDIR)$(LIBDIR)/$(SONAME) $(DESTDIR)$(LIBDIR)/libmilter.so $(DESTDIR)$(LIBDIR)/libmilter.a \
		$(DESTDIR)$(LIBDIR)/pkgconfig/milter.pc $(DESTDIR)$(BINDIR)/milter-send \
		$(foreach page,$(notdir $(MANUAL)),$(DESTDIR)$(MANDIR)/man$(subst .,,$(suffix $(page)))/$(page)) \
		$(DESTDIR)$(BASHDIR)/milter-send $(DESTDIR)$(ZSHDIR)/_milter-send $(DESTDIR)$(FISHDIR)/milter-send.fish \
		$(DESTDIR)$(INCLUDEDIR)/libmilter/mfapi.h $(DESTDIR)$(INCLUDEDIR)/libmilter/mfdef.h
	-rmdir $(DESTDIR)$(INCLUDEDIR)/libmilter

clean:  ## everything that was built
	$(CARGO) clean --target-dir $(TARGET)

help:  ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*  ## /\1\t/p' $(MAKEFILE_LIST) | expand -t 14

include benches/bench.mk
