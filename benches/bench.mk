# Benchmarks: what they are measured with, and the two ways of running them. Included by the Makefile.

BENCH := target/bench
BENCH_CFLAGS := -std=gnu11 -O2 -g -Wall -Wextra -Wpedantic -Werror -pthread
MULTIARCH = $(shell $(CC) -print-multiarch)
REFERENCE = $(firstword $(wildcard /usr/lib/$(MULTIARCH)/libmilter.so.1.0.1 /lib/$(MULTIARCH)/libmilter.so.1.0.1))

.PHONY: bench bench-quick bench-deps bench-programs bench-peers

# Everything, and docs/performance.md with its charts: about ten minutes on a machine that does nothing else.
bench: bench-programs bench-peers
	cargo bench --quiet --bench milter -- full

# A line of ratios for each scenario, in less than a minute.
bench-quick: bench-programs
	cargo bench --quiet --bench milter -- quick

# What the two need beyond a compiler. go-milter comes as a Debian source package.
bench-deps:
	DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends gcc libc6-dev libmilter1.0.1 \
		linux-perf valgrind golang-go golang-github-emersion-go-milter-dev python3 python3-milter

bench-programs: $(BENCH)/null-filter $(BENCH)/bare $(BENCH)/plain
	cargo build --quiet --release
	mkdir -p $(BENCH)/ours
	ln -sf ../../release/libmilter.so $(BENCH)/ours/libmilter.so.1.0.1

bench-peers: $(BENCH)/go-milter $(BENCH)/pymilter
	cargo build --quiet --release --manifest-path benches/peers/indymilter/Cargo.toml --target-dir target/peers
	cp target/peers/release/indymilter-null-filter $(BENCH)/indymilter

# Linked to the reference by its file, so that libmilter-dev is not needed; LD_LIBRARY_PATH decides at run time.
$(BENCH)/null-filter: benches/servers/null-filter.c
	@mkdir -p $(@D)
	$(CC) $(BENCH_CFLAGS) -Iinclude -o $@ $< $(or $(REFERENCE),$(error libmilter1.0.1 is missing: run make bench-deps))

$(BENCH)/bare $(BENCH)/plain: $(BENCH)/%: benches/servers/%.c benches/servers/wire.h
	@mkdir -p $(@D)
	$(CC) $(BENCH_CFLAGS) -o $@ $<

$(BENCH)/go-milter: benches/peers/go-milter/main.go
	@mkdir -p $(@D)
	GO111MODULE=off GOPATH=/usr/share/gocode GOCACHE=$(CURDIR)/target/go go build -o $@ ./$(<D)

$(BENCH)/pymilter: benches/peers/pymilter.py
	@mkdir -p $(@D)
	install -m 755 $< $@
