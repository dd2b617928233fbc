# Benchmarks: what they are measured with, and the two ways of running them. Included by the Makefile.

BENCH = $(TARGET)/bench
BENCH_PACKAGES = libmilter1.0.1 linux-perf valgrind golang-go golang-github-emersion-go-milter-dev python3-milter
MULTIARCH = $(shell $(CC) -print-multiarch)
REFERENCE = $(firstword $(wildcard /usr/lib/$(MULTIARCH)/libmilter.so.1.0.1 /lib/$(MULTIARCH)/libmilter.so.1.0.1))

# What a run is limited to: `make bench-quick ONLY=busy-64,busy-1000 SECONDS=2 SUBJECTS=ours,bare-epoll`. SECONDS is
# how long each subject is measured. `ONLY='busy-*'` takes all that begin so. A limited run prints tables and targets,
# and leaves docs/performance.md alone.
SELECTION = $(if $(ONLY),'only=$(ONLY)') $(if $(SECONDS),seconds=$(SECONDS)) $(if $(SUBJECTS),subjects=$(SUBJECTS))

.PHONY: bench bench-quick bench-deps bench-programs bench-peers

bench: bench-programs bench-peers  ## everything measured, into docs/performance.md: about ten minutes
	$(CARGO) bench $(CARGOFLAGS) --quiet --target-dir $(TARGET) --bench milter -- full $(SELECTION)

bench-quick: bench-programs  ## a line of ratios for each scenario, in less than a minute
	$(CARGO) bench $(CARGOFLAGS) --quiet --target-dir $(TARGET) --bench milter -- quick $(SELECTION)

# go-milter comes as a Debian source package.
bench-deps:  ## what the two need: Debian packages (as root)
	@dpkg-query -W $(BENCH_PACKAGES) >/dev/null 2>&1 || \
		DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $(BENCH_PACKAGES)

bench-programs: library bench-deps $(BENCH)/null-filter $(BENCH)/bare $(BENCH)/bare-epoll $(BENCH)/plain

bench-peers: bench-deps $(BENCH)/go-milter $(BENCH)/pymilter
	$(CARGO) build $(CARGOFLAGS) --quiet --release --manifest-path benches/peers/indymilter/Cargo.toml \
		--target-dir $(TARGET)/peers
	cp $(TARGET)/peers/release/indymilter-null-filter $(BENCH)/indymilter

# Linked to the reference by its file, so that libmilter-dev is not needed; LD_LIBRARY_PATH decides at run time.
$(BENCH)/null-filter: benches/servers/null-filter.c | bench-deps
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(WARNINGS) -pthread -Iinclude $< -o $@ $(REFERENCE)

$(BENCH)/bare $(BENCH)/bare-epoll $(BENCH)/plain: $(BENCH)/%: benches/servers/%.c benches/servers/wire.h
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(WARNINGS) -pthread $< -o $@

$(BENCH)/go-milter: benches/peers/go-milter/main.go | bench-deps
	@mkdir -p $(@D)
	GO111MODULE=off GOPATH=/usr/share/gocode GOCACHE=$(abspath $(TARGET))/go go build -o $@ ./$(<D)

$(BENCH)/pymilter: benches/peers/pymilter.py
	@mkdir -p $(@D)
	install -m 755 $< $@
