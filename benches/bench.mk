# Benchmarks: what they are measured with, and the two ways of running them. Included by the Makefile.

BENCH = $(TARGET)/bench
BENCH_PACKAGES = libmilter1.0.1 linux-perf valgrind golang-go golang-github-emersion-go-milter-dev python3-milter
MULTIARCH = $(shell $(CC) -print-multiarch)
REFERENCE = $(firstword $(wildcard /usr/lib/$(MULTIARCH)/libmilter.so.1.0.1 /lib/$(MULTIARCH)/libmilter.so.1.0.1))

# A run can be limited, to iterate over one scenario:
#   make bench-quick ONLY=busy-64 SECONDS=2                  us, Debian, and the best bare server
#   make bench-quick ONLY='busy-*,neighbours' SUBJECTS=ours,bare-epoll
#   make bench ONLY=S3 SECONDS=1                             the peers, too
# ONLY lists scenarios (`*` at the end: all that begin so; a wrong name gets the list of them), SECONDS is how long each
# subject is measured in each, SUBJECTS who is, besides Debian's libmilter (S1-metrics is always about ours). Such a run prints
# tables and targets, and leaves docs/performance.md alone.
SELECTION = $(if $(ONLY),'only=$(ONLY)') $(if $(SECONDS),seconds=$(SECONDS)) $(if $(SUBJECTS),subjects=$(SUBJECTS))

.PHONY: bench bench-quick bench-deps bench-programs bench-peers

bench: bench-programs bench-peers  ## everything measured, into docs/performance.md: about a quarter of an hour
	$(CARGO) bench $(CARGOFLAGS) --quiet --target-dir $(TARGET) --bench milter -- full $(SELECTION)

bench-quick: bench-programs  ## the targets only, in about two minutes; ONLY=busy-64 SECONDS=2 limits both
	$(CARGO) bench $(CARGOFLAGS) --quiet --target-dir $(TARGET) --bench milter -- quick $(SELECTION)

# go-milter comes as a Debian source package.
bench-deps:  ## what the two need: Debian packages (as root)
	@dpkg-query -W $(BENCH_PACKAGES) >/dev/null 2>&1 || \
		DEBIAN_FRONTEND=noninteractive apt-get install -q -y --no-install-recommends $(BENCH_PACKAGES)

bench-programs: library bench-deps $(BENCH)/null-filter $(BENCH)/least/libmilter.so.1.0.1 \
		$(BENCH)/bare $(BENCH)/bare-epoll $(BENCH)/plain

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

$(BENCH)/least/libmilter.so.1.0.1: benches/servers/least.c benches/servers/wire.h
	@mkdir -p $(@D)
	$(CC) $(CFLAGS) $(WARNINGS) -pthread -Iinclude -fPIC -shared -Wl,-soname,$(@F) $< -o $@

$(BENCH)/go-milter: benches/peers/go-milter/main.go | bench-deps
	@mkdir -p $(@D)
	GO111MODULE=off GOPATH=/usr/share/gocode GOCACHE=$(abspath $(TARGET))/go go build -o $@ ./$(<D)

$(BENCH)/pymilter: benches/peers/pymilter.py
	@mkdir -p $(@D)
	install -m 755 $< $@
