# internvla_ros: 'make demo' and 'make test' do all the set-up by themselves.
SHELL := /bin/bash
.DEFAULT_GOAL := help
.PHONY: help env build demo test lint docs lock clean clean-env

DEMO ?=
TEST ?=

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-10s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

env: ## set up system libraries, .venv, ROS 2 Jazzy and the pinned dependencies
	@scripts/setup_env.sh

build: env ## build messages and overlay, write env.bash (then: source env.bash)
	@scripts/build.sh

demo: build ## a simulated arm obeys; options: make demo DEMO="--headless --scenes 5 --seed 11"
	@source ./env.bash && exec internvla demo $(DEMO)

test: build ## lint, types and all tests; a part: make test TEST="test/test_cli.py -k help"
	@scripts/setup_browser.sh
	@scripts/test.sh $(TEST)

lint: env ## ruff, mypy and the linters of ament
	@scripts/lint.sh

docs: build ## the documentation, into build/docs
	@source ./env.bash && python scripts/write_interfaces.py && \
	  NO_MKDOCS_2_WARNING=1 mkdocs build --strict --quiet

lock: env ## write the lock files from what .venv has installed
	@.venv/bin/python scripts/write_locks.py

clean: ## remove what was built, keep .venv
	rm -rf build install log env.bash .mypy_cache .ruff_cache .pytest_cache .hypothesis

clean-env: clean ## remove .venv as well
	rm -rf .venv
