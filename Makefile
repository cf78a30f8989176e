# A thin front; the work is in tools/, tests/run.py and bench/.
.PHONY: help build run test bench check fuzz sim mutants coverage trust format clean
.DEFAULT_GOAL := help

ARGS ?=
BINARY := $(if $(wildcard src/cli/main.c),weir)

help: ## Show this
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-8s %s\n", $$1, $$2 }' Makefile
	@echo '  ARGS="..." is passed on, e.g. make run ARGS="--data /srv/weir", make test ARGS="--only unit"'

build: ## Build the release binary, build/weir
	@tools/setup build
	@tools/build release build $(BINARY)

run: build ## Build and start a broker with its usual ports
	@exec build/weir serve $(ARGS)

test: ## Build and run every test
	@tools/setup build test fuzz $(if $(ARGS),,python node java go c)
	@python3 tests/run.py $(ARGS)

bench: ## Measure, side by side with other brokers
	@tools/setup build
	@bench/run $(ARGS)

check: ## Format, tidy, warnings as errors by gcc and clang, static analysis
	@tools/setup build test check
	@tools/check $(ARGS)

fuzz: ## Fuzz every input for a while: make fuzz ARGS="--seconds 600"
	@tools/setup build fuzz
	@tools/fuzz.py --seconds 300 $(ARGS)

sim: ## Simulate from seeds: make sim SEEDS=10000000, or ARGS="--from 42 --seeds 1 --verbose"
	@tools/setup build test
	@tests/sim/run $(if $(SEEDS),--seeds $(SEEDS)) $(ARGS)

mutants: ## Break the code on purpose: every mutant must be noticed by the tests
	@tools/setup build test
	@tools/build release
	@tools/mutants --all $(ARGS)

coverage: ## Lines and branches of store and core that the tests reach
	@tools/setup build test fuzz
	@tools/coverage $(ARGS)

trust: ## Everything that is to lose a message, for 20 minutes, into TRUST.md; hours with ARGS="--long"
	@tools/trust $(ARGS)

format: ## Format the C sources in place
	@tools/setup test
	@git ls-files -co --exclude-standard '*.c' '*.h' | xargs clang-format-14 -i

clean: ## Remove everything that was built
	rm -rf build build-dev build-asan build-tsan build-fuzz build-werror build-analyzer build-coverage
