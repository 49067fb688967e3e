# What people and CI run. Each target does its own set-up; the work is in scripts/.

.DEFAULT_GOAL := help
# One at a time: each of them already uses every core.
.NOTPARALLEL:

.PHONY: help
help: ## Say what there is
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-9s %s\n", $$1, $$2 }' Makefile

.PHONY: run
run: ## Build, start sherwoodd on a sample cluster, and show it through the snapshot
	@scripts/run.sh

.PHONY: test
test: ## Run every test (as root also those that mount; SHERWOOD_REQUIRE_ALL=1: none may be left out)
	@scripts/test.sh

.PHONY: torture
torture: ## Run the stress tests and the models ten times as long
	@scripts/test.sh torture

.PHONY: lint
lint: ## Check format, clippy, docs, one version of arrow and tokio, and where unsafe is
	@scripts/lint.sh

.PHONY: bench
bench: ## Measure, beside peers and the floors of the same run (ARGS=--large: also 1 GB)
	@scripts/bench.sh $(ARGS)

.PHONY: fuzz
fuzz: ## Fuzz each target for a while (SECONDS_EACH=60)
	@scripts/fuzz.sh

.PHONY: clean
clean: ## Remove everything that was built or made here
	cargo clean
	rm -rf target benches/peers/target fuzz/target
