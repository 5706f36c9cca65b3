# Everything runs in a virtual environment of its own, .venv. `make help` lists the targets.
PYTHON ?= python3
BIN := .venv/bin
SECONDS_OF_DEMO ?= 30
SEEDS ?= 1000
TRANSPORT ?= cometd
# The tests start some hundred processes: each would compile the program anew.
unexport PYTHONDONTWRITEBYTECODE
# And make some thousand databases, where each commit waits for the disk: they are in memory where 4 GB of it are free
# (in MB; the 0 behind it stands for none where the system does not tell).
MEMORY := $(shell test "$$(df --output=avail -BM /dev/shm 2>/dev/null | tail -1 | tr -dc 0-9)0" -ge 40000 && echo /dev/shm)

.PHONY: help setup demo test format lint types schemas clean

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 12

setup: $(BIN)/.ready ## Make the virtual environment and install Mosquitto where they are missing

$(BIN)/.ready: pyproject.toml .ci/setup
	@bash .ci/setup $(PYTHON)
	@touch $@

demo: setup ## A show of half a minute: a local org, a broker, edits and commands, and a summary
	@$(BIN)/salesforce-sync demo --seconds $(SECONDS_OF_DEMO)

test: export TMPDIR := $(or $(TMPDIR),$(MEMORY),/tmp)
test: setup format-check lint types ## Format, lint, strict types and every test that is not slow (ten minutes at most)
	$(BIN)/pytest -q -n 2 tests/unit tests/property
	$(BIN)/pytest -q -n 5 --dist loadfile --no-loadscope-reorder -m "not slow" --ignore=tests/faults/test_soak.py \
	  tests/e2e tests/faults tests/traps tests/integration tests/devorg
	$(BIN)/pytest -q tests/faults/test_soak.py

.PHONY: test-slow
test-slow: setup ## A quiet day of API calls, a kill at every commit of a first start, small benchmarks (minutes)
	$(BIN)/pytest -q -m slow tests

.PHONY: format-check
format-check: setup
	$(BIN)/ruff format --check .

format: setup ## Rewrite the code in the project's format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

lint: setup
	$(BIN)/ruff check .

types: setup
	$(BIN)/mypy

.PHONY: test-clients
test-clients: setup ## pandas, Datasette, a notebook on the replica of a daemon at work; a Node client on the local org
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[clients]'
	$(BIN)/pytest -q tests/clients

.PHONY: lost-answers
lost-answers: setup ## 10,000 creates of which many an answer is lost: no duplicates, none missing (minutes)
	LOST_ANSWER_CREATES=10000 $(BIN)/pytest -s tests/faults/test_commands_lost.py

.PHONY: soak
soak: setup ## A thousand seeds of random edits, commands and faults, each settled and compared (an hour); TRANSPORT=pubsub
	$(BIN)/python -m tests.faults.soak --seeds $(SEEDS) --transport $(TRANSPORT)

.PHONY: bench
bench: setup ## Measure, beside the same work without the connector; figures and machine as JSON in bench.json
	$(BIN)/python -m tests.bench --json bench.json

.PHONY: test-deploy
test-deploy: setup ## Install, upgrade, kill, hang, reboot and uninstall on a node with a real systemd (root, minutes)
	@for tool in systemd-nspawn debootstrap nsenter dbus-daemon; do command -v $$tool >/dev/null || \
	  { echo "test-deploy: $$tool is missing: apt-get install systemd-container debootstrap dbus"; exit 1; }; done
	$(BIN)/pytest -q -x tests/deploy

.PHONY: lock
lock: setup ## Pin what the service installs, with hashes, in deploy/requirements.txt
	$(BIN)/pip install --quiet --disable-pip-version-check 'uv>=0.13,<0.14'
	$(BIN)/uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	  --no-annotate --custom-compile-command 'make lock' --extra pubsub pyproject.toml deploy/build.in \
	  -o deploy/requirements.txt

.PHONY: stubs
stubs: setup ## Generate connector/eventbus anew from Salesforce's pubsub_api.proto
	$(BIN)/pip install --quiet --disable-pip-version-check 'grpcio-tools==1.85.1' 'mypy-protobuf==5.1.0'
	PATH=$(BIN):$$PATH $(BIN)/python -m grpc_tools.protoc -I. --python_out=. --grpc_python_out=. --mypy_out=quiet:. \
	  --mypy_grpc_out=quiet:. connector/eventbus/pubsub_api.proto

.PHONY: wheels
wheels: setup ## Is every pinned package there as a wheel for a Pi (aarch64), with its hash?
	$(BIN)/pip download --quiet --disable-pip-version-check --no-deps --require-hashes --only-binary :all: \
	  --python-version 3.11 --platform manylinux_2_17_aarch64 --platform manylinux2014_aarch64 \
	  --platform manylinux_2_28_aarch64 --dest build/wheels-aarch64 -r deploy/requirements.txt
	@echo "every package of deploy/requirements.txt is there for aarch64"

.PHONY: test-pi
test-pi: wheels ## Run the daemon on a Pi's processor, emulated (minutes)
	@for tool in qemu-aarch64-static debootstrap; do command -v $$tool >/dev/null || \
	  { echo "test-pi: $$tool is missing: apt-get install qemu-user-static debootstrap"; exit 1; }; done
	$(BIN)/pytest -q -x tests/arm64

.PHONY: wear
wear: setup ## Bytes written to disk by 100,000 changes, and the memory it takes (minutes)
	$(BIN)/python -m tests.bench.wear

schemas: setup ## Write schemas/ and docs/settings.md anew from the models
	$(BIN)/python -m connector.schemas schemas connector/devorg/objects/describe
	$(BIN)/python -m connector.reference > docs/settings.md

clean: ## Remove the virtual environment and caches
	rm -rf .venv .mypy_cache .pytest_cache .ruff_cache .hypothesis build *.egg-info
