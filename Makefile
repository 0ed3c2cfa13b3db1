# `make` prints what there is. Needs Python 3.11 or newer (with venv and pip) and make, nothing else.

PYTHON      ?= python3
VENV        := .venv
BIN         := $(VENV)/bin
PIP_INSTALL := -m pip --disable-pip-version-check install --progress-bar off
UV_VERSION  := 0.13.9
UV          := .venvs/lock/bin/uv

SETUP       := $(VENV)/.installed
APP_SDKS    := microsoft dapr
SETUP_SDKS  := $(APP_SDKS:%=.venvs/%/.installed)

PROTO_DIR   := proto
PROTOS      := $(wildcard $(PROTO_DIR)/sidecar/schema/*.proto)
PROTOC      := $(BIN)/python -m grpc_tools.protoc --plugin=protoc-gen-mypy=$(BIN)/protoc-gen-mypy -I$(PROTO_DIR)

LINTED      := sidecar tests examples .ci
# More options for pytest, such as PYTEST_ARGS="-k outbox -x".
PYTEST_ARGS ?=
# A choice of tests may leave nothing for one of two runs, which is exit code 5.
OR_NONE     := $(if $(PYTEST_ARGS),|| [ $$? -eq 5 ])

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup setup-sdks proto proto-check fmt fmt-check lint types imports check test test-hard newcomer demo multi-app chaos lock \
        lock-check image-lint sim soak mutants sdks sdks-pairs sdks-daprd sdks-record sdks-idle sdks-stops sdks-newest reliability metrics fuzz fuzz-sockets sbom audit \
        bench-memory bench-timers clean

help: ## print this list
	@echo "usage: make TARGET"; echo
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

# --- environments ----------------------------------------------------------------------------------------------------

setup: $(SETUP) ## make .venv with the `sidecar` command and the tools, from the lock

setup-sdks: $(SETUP_SDKS) ## make an environment for each workflow SDK that tests and examples use

define create_venv
@$(PYTHON) -c 'import sys; sys.version_info < (3, 11) and sys.exit( \
    "Python 3.11 or newer is needed, this is " + sys.version.split()[0] + ": try make PYTHON=python3.12 setup")'
$(PYTHON) -m venv $(@D)
endef

$(SETUP): requirements-dev.lock pyproject.toml
	$(create_venv)
	$(BIN)/python $(PIP_INSTALL) --require-hashes -r requirements-dev.lock
	$(BIN)/python $(PIP_INSTALL) --no-deps --no-build-isolation --editable .
	@touch $@

.venvs/%/.installed: tests/blackbox/requirements-%.lock
	$(create_venv)
	$(@D)/bin/python $(PIP_INSTALL) --require-hashes -r $<
	@touch $@

# --- generated code --------------------------------------------------------------------------------------------------

proto: $(SETUP) ## generate sidecar/schema from proto/
	$(PROTOC) --python_out=. --mypy_out=. $(PROTOS)

proto-check: $(SETUP) ## fail if sidecar/schema is not what `make proto` would write
	rm -rf build/proto && mkdir -p build/proto
	$(PROTOC) --python_out=build/proto --mypy_out=build/proto $(PROTOS)
	diff -rq --exclude=__init__.py --exclude=__pycache__ build/proto/sidecar/schema sidecar/schema \
	    || { echo "sidecar/schema is not current: run 'make proto'"; exit 1; }

# --- checks ----------------------------------------------------------------------------------------------------------

fmt: $(SETUP) ## format the code and repair what the linter can
	$(BIN)/ruff check --fix --exit-zero --quiet $(LINTED)
	$(BIN)/ruff format $(LINTED)

fmt-check: $(SETUP)
	$(BIN)/ruff format --check $(LINTED)

lint: $(SETUP) ## lint
	$(BIN)/ruff check $(LINTED)

types: $(SETUP) ## strict types
	$(BIN)/mypy

imports: $(SETUP) ## which module may import which
	$(BIN)/lint-imports

check: fmt-check lint types imports ## format, lint, types, import rules and the fast tests, in under a minute
	$(BIN)/pytest -n 2 -m "not blackbox and not slow and not hard" $(PYTEST_ARGS)

# Both parts always run: what fails in one says nothing of the other.
test: $(SETUP) $(SETUP_SDKS) ## all tests but those of test-hard
	@mkdir -p build
	failed=0; \
	$(BIN)/pytest -n 2 --junitxml=build/tests-inside.xml -m "not blackbox and not hard" $(PYTEST_ARGS) tests $(OR_NONE) \
	    || failed=1; \
	$(BIN)/pytest --junitxml=build/tests-outside.xml -m "blackbox and not hard" $(PYTEST_ARGS) tests $(OR_NONE) \
	    || failed=1; \
	exit $$failed

test-hard: $(SETUP) $(SETUP_SDKS) ## the tests that need root, strace and faketime, or take minutes
	@mkdir -p build
	$(BIN)/pytest --junitxml=build/tests-hard.xml -m hard $(PYTEST_ARGS) tests

MATRIX := $(BIN)/python -m tests.sdks.matrix $(if $(SDKS),--sdks "$(SDKS)") $(if $(READY),--ready $(READY))

sdks: $(SETUP) ## run the SDKs of all languages against real sidecars; SDKS= and SCENARIOS= choose, READY= has builds
	$(MATRIX) $(if $(SCENARIOS),--scenarios "$(SCENARIOS)")

sdks-pairs: $(SETUP) ## what an activity is given by a workflow of each other language
	$(MATRIX) --pairs

sdks-daprd: $(SETUP) ## a Go and a Python app, or those of SDKS=, each beside a daprd that tools have started
	$(BIN)/python -m tests.sdks.matrix --sdks "$(or $(SDKS),go-dapr python-dapr-1.19)" --daprds

sdks-record: $(SETUP) ## the same, and keep what the SDKs send for the tests of the decoding
	$(MATRIX) --record

sdks-idle: $(SETUP) ## all SDKs at once with nothing to do: no stream is lost, no sidecar is busy; SECONDS= for how long
	$(MATRIX) --idle $(SECONDS)

sdks-stops: $(SETUP) ## all SDKs at once, whose sidecars stop while an activity runs, and are then away for 60 s or SECONDS=
	$(MATRIX) --stops $(SECONDS)

sdks-newest: $(SETUP) ## say which registry serves an SDK that is newer than the newest in the matrix (needs the network)
	$(BIN)/python -m tests.sdks.newest

newcomer: $(SETUP) ## the README's small example from nothing but Python, as it says, with the time of each step (needs bash)
	$(BIN)/python -m tests.newcomer

demo: $(SETUP) $(SETUP_SDKS) ## one workflow across three apps, with a crash in the middle
	@$(BIN)/python examples/demo.py

multi-app: $(SETUP) $(SETUP_SDKS) ## the statements about multi-app workflows, each with its test and result; RESULTS= reads files
	$(BIN)/python -m tests.multi_app $(RESULTS)

chaos: $(SETUP) $(SETUP_SDKS) ## five apps of three SDK kinds under faults, for 5 minutes or SECONDS=
	$(BIN)/python -m tests.chaos $(if $(SECONDS),--seconds $(SECONDS)) $(if $(SEED),--seed $(SEED))

reliability: $(SETUP) $(SETUP_SDKS) ## the tests of faults, with real processes; writes docs/reliability.md
	$(BIN)/python -m tests.reliability $(RESULTS)

metrics: $(SETUP) ## write docs/metrics.md from the code
	$(BIN)/python -m tests.telemetry.reference

sim: $(SETUP) ## simulate deployments until nothing new is found; SEED= shows one as a story, STEPS= cuts it short
	$(BIN)/python -m tests.simulation $(if $(SEED),--seed $(SEED)) $(if $(STEPS),--steps $(STEPS))

fuzz: $(SETUP) .venvs/fuzz/.tried ## hostile input in process, for 2 minutes or SECONDS=, or INPUTS=; also SEED=, TARGETS=
	$(BIN)/python -m tests.fuzz $(if $(SECONDS),--seconds $(SECONDS)) $(if $(INPUTS),--inputs $(INPUTS)) \
	    $(if $(SEED),--seed $(SEED)) $(if $(TARGETS),--targets $(TARGETS))

fuzz-sockets: $(SETUP) ## hostile input to a real sidecar, 5,000 for each method or INPUTS=
	$(BIN)/python -m tests.fuzz.sockets $(if $(INPUTS),--inputs $(INPUTS)) $(if $(SEED),--seed $(SEED))

# Where the library has no wheel the fuzzing goes on without coverage.
.venvs/fuzz/.tried: tests/fuzz/requirements.lock
	$(create_venv)
	-$(@D)/bin/python $(PIP_INSTALL) --only-binary :all: --require-hashes -r $<
	@touch $@

soak: $(SETUP) ## simulate deployments for an hour
	$(BIN)/python -m tests.simulation --soak --seconds 3600 --first $(shell date +%s)

mutants: $(SETUP) ## put deliberate bugs into copies of the code: tests or the simulation must find each; MUTANTS= chooses
	$(BIN)/python -m tests.simulation.mutants $(MUTANTS)

bench-memory: $(SETUP) ## memory of a sidecar while 100,000 activities of 100 kB wait (10 GB of disk); COUNT=, BYTES=, TAKEN=
	$(BIN)/python -m tests.bench.memory $(or $(COUNT),100000) $(or $(BYTES),100000) $(or $(TAKEN),5000)

bench-timers: $(SETUP) ## how fast a sidecar delivers 1,000,000 timers that are due at once, and its memory; COUNT=
	$(BIN)/python -m tests.bench.timers $(or $(COUNT),1000000)

image-lint: $(SETUP) ## check the container files as far as that goes without an engine
	$(BIN)/pytest tests/test_containers.py

# --- locks -----------------------------------------------------------------------------------------------------------

# `make lock` keeps the versions that still fit; `make lock UPGRADE=1` takes the newest.
COMPILE := pip compile --quiet --universal --python-version 3.11 --generate-hashes \
           --custom-compile-command "make lock" $(if $(UPGRADE),--upgrade)

OWN_INS := requirements-supply.in tests/fuzz/requirements.in $(APP_SDKS:%=tests/blackbox/requirements-%.in) \
           $(wildcard tests/sdks/python_*/requirements*.in)
LOCKS   := requirements.lock requirements-dev.lock requirements-build.lock $(OWN_INS:.in=.lock)
SOURCES := pyproject.toml $(OWN_INS)

$(UV):
	$(PYTHON) -m venv .venvs/lock
	.venvs/lock/bin/python $(PIP_INSTALL) uv==$(UV_VERSION)

lock: $(UV) ## resolve the dependencies again and write the locks, with hashes
	$(UV) $(COMPILE) pyproject.toml -o requirements.lock
	$(UV) $(COMPILE) pyproject.toml -c requirements.lock --group dev -o requirements-dev.lock
	$(UV) $(COMPILE) -c requirements-dev.lock --group pyproject.toml:build -o requirements-build.lock
	$(foreach in,$(OWN_INS),$(UV) $(COMPILE) $(in) -o $(in:.in=.lock) &&) true

# Hashes are left out: an index may add files to a version, and so hashes, but it cannot change a file.
lock-check: $(UV) ## fail if a lock is not what `make lock` would write
	rm -rf build/lock && mkdir -p $(addprefix build/lock/,$(sort $(dir $(LOCKS))))
	for file in $(SOURCES) $(LOCKS); do cp $$file build/lock/$$file || exit 1; done
	$(MAKE) --directory=build/lock --file=$(CURDIR)/Makefile UV=$(CURDIR)/$(UV) lock
	for lock in $(LOCKS); do \
	    grep -v -e '--hash=' $$lock > build/lock/committed; \
	    grep -v -e '--hash=' build/lock/$$lock | diff -u --label "$$lock" --label "make lock" build/lock/committed - \
	    || exit 1; \
	done

# --- supply chain ----------------------------------------------------------------------------------------------------

.venvs/supply/.installed: requirements-supply.lock
	$(create_venv)
	$(@D)/bin/python $(PIP_INSTALL) --require-hashes -r $<
	@touch $@

sbom: .venvs/supply/.installed ## build/sbom.json: what the sidecar is made of, from the lock (CycloneDX)
	@mkdir -p build
	.venvs/supply/bin/cyclonedx-py requirements --output-reproducible --pyproject pyproject.toml \
	    --output-file build/sbom.json requirements.lock

# Asks PyPI's service for advisories; where only a mirror is reached, it says so and fails.
audit: .venvs/supply/.installed ## look for known vulnerabilities in the locked dependencies (needs pypi.org)
	.venvs/supply/bin/pip-audit --strict --disable-pip --require-hashes --requirement requirements.lock

clean: ## remove what was built, but not the environments
	rm -rf build dist .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	find . -name __pycache__ -not -path './.venv*' -prune -exec rm -rf {} +
