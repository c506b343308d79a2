# `make help` lists the targets.
.DEFAULT_GOAL := help
.PHONY: help run test versions fuzz soak check audit image bench fmt

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-8s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

run: ## Serve on 127.0.0.1:50051, embedded
	cargo run --release

test: ## Run every test, with private PostgreSQL and Redis servers (installed if missing)
	tests/run

versions: ## Run the suites of the store and of Redis on other versions of the servers
	tests/versions $(NAMES)

fuzz: MINUTES ?= 10
fuzz: ## Pass mutated inputs to every decoder for MINUTES=10 in total
	fuzz/run $(MINUTES)

soak: MINUTES ?= 30
soak: ## Check recorded histories under random faults for MINUTES=30
	CONSISTENCY_SECONDS=$$((60 * $(MINUTES))) tests/with-servers cargo test --locked --test consistency -- \
		--nocapture mixed_faults

check: ## Check format, lints, the API, dependencies, manifests and scripts
	.ci/check

audit: ## Compare the dependencies with known vulnerabilities (needs GitHub and PyPI)
	.ci/audit

image: ## Build and test the container image without Docker (as root)
	tests/image

bench: ## Measure the hot paths, with a private PostgreSQL and Redis
	tests/python-env bench
	tests/with-servers cargo bench --locked --bench hot_path -- $(SECTION)

fmt: ## Format the code
	cargo fmt --all
