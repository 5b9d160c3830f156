# Two commands for people: `make demo` and `make test`.  Everything they need is made in .venv with
# Debian's own python3 (PYTHON=... for another one) and remade when the build's inputs change.
# What the machine lacks is named together with the way to get it; without a compiler the package
# still works, on its plain-Python twins, and says so.

SHELL := /bin/bash
PYTHON ?= $(firstword $(wildcard /usr/bin/python3) python3)
# One more than there are processors: many tests wait for peers and timers.
JOBS ?= $(shell echo $$(($$(nproc) + 1)))
# What is installed besides the library; `readers` adds the programs that read the probe's files.
EXTRAS ?= test
VENV := .venv
BIN := $(VENV)/bin
TESTS := $(BIN)/python -m pytest -n $(JOBS) --dist worksteal --durations 10

COMPILER := $(shell command -v gcc || command -v cc)
HEADER := $(shell $(PYTHON) -c 'import sysconfig; print(sysconfig.get_path("include"))' 2>/dev/null)/Python.h
BUILD := $(if $(and $(COMPILER),$(wildcard $(HEADER))),compiled,twin)
# A stamp per kind of build: once a compiler appears, the next make uses it.
READY := $(VENV)/.ready-$(BUILD)
INPUTS := pyproject.toml setup.py $(shell find src -name '*.pyx' -o -name '*.pxd')

.PHONY: demo test test-pure test-long campaign lint bench fuzz mutate coverage bogo interop specs docs clean help compiler

help:
	@echo 'make demo       watch a DTLS 1.3 and an STCP connection move a real file on this machine'
	@echo 'make test       the tests (under 8 minutes)'
	@echo 'make test-pure  the same on the plain-Python twins, as where there is no compiler (twice as long)'
	@echo 'make test-long  all tests, with many examples, and again on the plain-Python twins'
	@echo 'make campaign   kill, stop, fill and cut what delivers events, 200 times; SEED=n FAULTS=n (long)'
	@echo 'make lint       ruff and mypy --strict'
	@echo 'make bench      measurements beside others, with a report (ten minutes)'
	@echo 'make fuzz       every damaged byte, and the property tests with 5,000 examples each (long)'
	@echo '                with GROUP=records SECONDS=600: look for bad input for so long (GROUP=all: each group)'
	@echo 'make mutate     remove the security checks one at a time; a test must notice each (long)'
	@echo 'make coverage   branches of tls13, record and dtls that the tests reach: 95 % at least (long)'
	@echo 'make bogo       the cases of BoringSSL'"'"'s test runner, with BOGO_RUNNER=<its binary> (long)'
	@echo 'make interop    talk to other people'"'"'s software and write down what was shown, docs/interop.md'
	@echo 'make specs      write specs/coverage.md from the markers in code and tests'
	@echo 'make docs       check that what the documents show is what the program does'
	@echo 'make clean      remove .venv and everything built'

demo: $(READY)
	@$(BIN)/sealwire demo $(ARGS)

test: $(READY)
	@$(TESTS) $(ARGS)

test-long: $(READY)
	@HYPOTHESIS_PROFILE=long $(TESTS) -m '' $(ARGS)
	@$(MAKE) --no-print-directory test-pure

# What compares a twin with what is compiled is skipped by name, and counted.
test-pure: $(READY)
	@SEALWIRE_PURE=1 SEALWIRE_REQUIRE_COMPILED= $(TESTS) $(ARGS)

campaign: $(READY)
	@$(BIN)/python -m tests.campaign --seed $(or $(SEED),1) --faults $(or $(FAULTS),200) $(ARGS)

lint: $(VENV)/.lint
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

# A row that cannot be believed makes it fail, after the report.
bench: $(VENV)/.bench
	@$(BIN)/sealwire bench all --out build/bench.json $(ARGS); code=$$?; \
	  [ $$code -le 1 ] && $(BIN)/sealwire bench report build/bench.json --html build/bench.html --markdown docs/performance.md && exit $$code

# With GROUP: tests/fuzzing/fuzz.py; libFuzzer follows coverage where atheris can be had, else blindly.
fuzz: $(if $(GROUP),$(VENV)/.fuzz,$(READY))
ifdef GROUP
	@$(BIN)/python -m tests.fuzzing.fuzz $(GROUP) --seconds $(or $(SECONDS),600) $(ARGS)
else
	@HYPOTHESIS_PROFILE=fuzz $(TESTS) -m '' tests/fuzzing $$(grep -rl --include='test_*.py' 'from hypothesis' tests) $(ARGS)
endif

# The table goes to docs/security.md.  ARGS='--only cookie' tries those alone and writes nothing.
mutate: $(READY)
	@$(BIN)/python -m tests.mutation.run --jobs $(JOBS) $(or $(ARGS),--report docs/security.md)

# The record layer has two implementations, and coverage sees the plain one; then what only the other reaches.
COVERED := $(addprefix tests/unit/,tls13 dtls record stcp) tests/limits tests/network
coverage: $(READY)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'coverage>=7.6'
	@$(BIN)/coverage erase
	@SEALWIRE_PURE=1 SEALWIRE_REQUIRE_COMPILED= $(BIN)/coverage run -m pytest -q -n 0 $(COVERED) $(ARGS)
	@$(BIN)/coverage run -m pytest -q -n 0 tests/unit/record tests/unit/drive $(ARGS)
	@$(BIN)/coverage combine --quiet
	@$(BIN)/coverage report --fail-under 95

# The runner is BoringSSL's own program, built elsewhere: tests/bogo/README.md.
bogo: $(READY)
	@$(BIN)/python tests/bogo/run.py --runner '$(BOGO_RUNNER)' --report tests/bogo/README.md $(ARGS)

# An absent peer would leave holes in the page, so here it is an error.
interop: $(READY)
	@tests/interop/install_peers
	@tests/interop/install_tshark
	@tests/interop/install_prometheus || true
	@SEALWIRE_REQUIRE_PEERS=1 $(TESTS) -q -p tests.interop.report --interop-report docs/interop.md --ignore tests/interop/test_report.py tests/interop $(ARGS)
	@echo 'docs/interop.md is written'

specs: $(READY)
	@$(BIN)/python -m tests.specs.register

docs: $(READY)
	@$(BIN)/python -m pytest -q tests/test_docs.py tests/test_readme.py $(ARGS)

compiler:
ifeq ($(BUILD),twin)
	@missing='$(strip $(if $(COMPILER),,gcc) $(if $(wildcard $(HEADER)),,python3-dev))'; \
	if [ "$$SEALWIRE_REQUIRE_COMPILED" = 1 ]; then \
	  echo "make: SEALWIRE_REQUIRE_COMPILED=1, but there is no $$missing here: apt-get install $$missing (as root)" >&2; exit 1; \
	fi; \
	echo "make: no $$missing here, so going on without the compiled modules, on their slower plain-Python twins; to have them: apt-get install $$missing (as root), then make again"
endif

$(READY): $(INPUTS) | compiler
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  { echo 'make: Python 3.11 or newer is needed and $(PYTHON) is not that: apt-get install python3, or make PYTHON=/path/to/python3' >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  { echo 'make: python3-venv is missing, and nothing can be installed without it: apt-get install python3-venv (as root), then make again' >&2; exit 1; }
	@echo 'make: preparing $(VENV) (once, about a minute)'
	@[ -x $(BIN)/pip ] || $(PYTHON) -m venv --clear $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$(EXTRAS)]'
	@$(BIN)/sealwire --version
	@rm -f $(VENV)/.ready-* $(VENV)/.lint $(VENV)/.bench $(VENV)/.fuzz
	@touch $@

$(VENV)/.lint: $(READY)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[lint]'
	@touch $@

$(VENV)/.bench: $(READY)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[bench]'
	@touch $@

$(VENV)/.fuzz: $(READY)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'atheris>=3' \
	  || echo 'make: no atheris for this Python, so fuzzing goes on without looking at coverage'
	@touch $@

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis src/*.egg-info
	find src tests -name __pycache__ -prune -exec rm -rf {} +
	find src -name '*.so' -delete
	for module in $$(find src -name '*.pyx'); do rm -f "$${module%.pyx}.c"; done
