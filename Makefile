# Everything here works on a fresh Debian or Ubuntu machine that has Rust: `setup` installs the rest.

.PHONY: help setup setup-clients build demo test test-clients test-suite test-suite-switching chaos bench bench-switchover bench-parts lint deny fmt fmt-check ci bench-instructions

help:       ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 24

setup:      ## install redis-server and a linker where they are missing; print versions
	@scripts/setup.sh

setup-clients: setup ## install the client libraries that are tested, below target/ where possible
	@scripts/setup-clients.sh

build: setup ## build the optimised program: target/release/pointsman
	cargo build --release

demo: build ## five switchovers under load with proof; options in DEMO_ARGS="--seconds 5"
	target/release/pointsman demo $(DEMO_ARGS)

test: setup-clients ## all tests; servers are started and ended by the tests themselves
	POINTSMAN_CLIENTS=required cargo test
	@$(MAKE) --no-print-directory test-suite test-suite-switching

test-clients: setup-clients ## only the tests of real client libraries through switchovers
	POINTSMAN_CLIENTS=required cargo test --test real_clients

test-suite: setup ## Redis' own tests, directly and through the proxy; some: FILES="unit/pause unit/sort"
	@scripts/redis-suite.sh
	SUITE_REQUIRED=1 SUITE_FILES="$(FILES)" cargo test --test redis_suite

# FILES="unit/multi unit/other" runs others; SWITCH_MS=500 is more often.
test-suite-switching: setup ## Redis' own tests while the master changes every two seconds
	@scripts/redis-suite.sh
	SUITE_REQUIRED=1 SUITE_SWITCHING="$(FILES)" SUITE_SWITCH_MS="$(or $(SWITCH_MS),2000)" \
		cargo test --test redis_suite switching::

# CHAOS_SEED=7 repeats the decisions of a run; KVROCKS_BIN=/path/to/kvrocks does it to Kvrocks.
chaos: setup ## random switchovers, crashes and partitions, every reply judged; CHAOS_SECONDS=600
	CHAOS_SECONDS="$(or $(CHAOS_SECONDS),600)" \
		cargo test --test chaos -- matrix as_long_as_wanted --test-threads 1 --nocapture

.PHONY: fuzz
fuzz: ## random bytes against all that reads bytes; FUZZ_SECONDS=600 FUZZ_SEED=7
	FUZZ_SECONDS="$(or $(FUZZ_SECONDS),120)" FUZZ_SEED="$(or $(FUZZ_SEED),$(shell date +%s))" \
		cargo test --test fuzz -- --nocapture

.PHONY: soak
soak: setup ## 1000 switchovers in a row under load, memory watched; options in SOAK_ARGS="-n 200"
	cargo bench --bench soak -- $(SOAK_ARGS)

bench:      ## what the proxy costs beside direct, nutcracker, haproxy; options in BENCH_ARGS="--quick"
	@scripts/setup.sh bench
	cargo bench --bench proxy -- $(BENCH_ARGS)

bench-switchover: setup ## how long writes wait in a switchover; options in BENCH_ARGS="-n 4 --value-bytes 1024,16384,131072,1048576"
	cargo bench --bench switchover -- $(BENCH_ARGS)

.PHONY: bench-memory
# Each client is an open file here and one in the proxy.
bench-memory: setup ## memory of idle clients and of held ones; options in BENCH_ARGS="--idle 500"
	ulimit -n 20000 2>/dev/null; cargo bench --bench memory -- $(BENCH_ARGS)

bench-parts: setup ## scanner, command table and gate, without a network
	cargo bench --bench scan --bench command --bench gate

bench-instructions: ## instructions per request, counted by valgrind; some: ONLY="the proxy"
	@scripts/setup.sh bench
	cargo bench --bench instructions -- "$(ONLY)"

lint:       ## what must be silent before a commit
	cargo clippy --all-targets -- -D warnings

deny:       ## look at the dependencies: licences, sources, known faults
	@scripts/cargo-deny.sh

fmt:        ## format the code
	cargo fmt

fmt-check:  ## fail when the code is not formatted
	cargo fmt --check

ci:         ## what is run for every change
	.ci/run
