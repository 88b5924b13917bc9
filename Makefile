# Every target works from a bare clone with Python >= 3.11 alone: it makes .venv and installs what it needs there.
# `make -n` shows what would run; PYTHON=... picks the interpreter, PYTEST_ARGS=... adds to pytest's arguments.

PYTHON ?= $(firstword $(foreach p,python3 python3.11 python3.12 python3.13 python3.14,\
	$(shell $(p) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && echo $(p))))
WORKERS ?= 2
PYTEST_ARGS ?=
FUZZ_EXAMPLES ?= 5000
FUZZ_MODELS ?= 2000
BENCH_ARGS ?=
CONFORMANCE_ARGS ?=

PY := .venv/bin/python
comma := ,
# One stamp per set of extras and content of pyproject.toml: a changed dependency list installs again.
HASH := $(shell cksum < pyproject.toml | cut -d' ' -f1)
STAMP = .venv/.installed-$(1)-$(HASH)
PYTEST = $(PY) -m pytest -n $(WORKERS) --dist loadscope

.PHONY: demo test lint unit test-deploy bench bench-ops conformance fuzz fuzz-models clean
.DEFAULT_GOAL := test
.NOTPARALLEL:  # two pip runs in one .venv would race

demo: $(call STAMP,test)
	$(PY) -m examples.demo

test: lint unit

unit: $(call STAMP,test+dev+cuda+opencl)
	$(PYTEST) -m "not deploy" $(PYTEST_ARGS)

lint: $(call STAMP,test+dev+cuda+opencl)
	$(PY) -m ruff check .
	$(PY) -m mypy

# What leaves the machine: C programs, valgrind, emulated processors. Installs those tools where it may; a test whose tool is
# missing says so and is skipped.
DEPLOY_COMMANDS := gcc valgrind node qemu-aarch64 aarch64-linux-gnu-gcc arm-linux-gnueabihf-gcc riscv64-linux-gnu-gcc
DEPLOY_PACKAGES := gcc libc6-dev valgrind nodejs qemu-user gcc-aarch64-linux-gnu gcc-arm-linux-gnueabihf gcc-riscv64-linux-gnu

test-deploy: $(call STAMP,test+dev+cuda+opencl)
	@missing=; for c in $(DEPLOY_COMMANDS); do command -v $$c > /dev/null || missing="$$missing $$c"; done; \
	if [ -n "$$missing" ] && command -v apt-get > /dev/null && [ "$$(id -u)" = 0 ]; then \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends $(DEPLOY_PACKAGES) || true; \
	elif [ -n "$$missing" ]; then echo "missing, and so not tested:$$missing"; fi
	$(PYTEST) -m deploy $(PYTEST_ARGS)
	$(PYTEST) tests/deploy -m "not deploy" $(PYTEST_ARGS)

bench: $(call STAMP,bench)
	$(PY) -m bench $(BENCH_ARGS)

# Per-operator regressions, on pytest-benchmark: serial, and compared with the last saved run where there is one.
bench-ops: $(call STAMP,bench)
	$(PY) -m pytest bench --benchmark-enable --benchmark-only --benchmark-autosave $(PYTEST_ARGS)

# All of ONNX's own backend tests; the result goes to tests/conformance/RESULTS.md.
conformance: $(call STAMP,test)
	$(PY) -m tests.conformance.run --jobs $(WORKERS) $(CONFORMANCE_ARGS)

# The hypothesis tests again, with random seeds: FUZZ_EXAMPLES random programs under random schedules, and fewer of the rest.
# Ends with a table: of each primitive, how many steps were proved, unknown and refused.
fuzz: $(call STAMP,test)
	FUZZ_EXAMPLES=$(FUZZ_EXAMPLES) $(PYTEST) --dist load --hypothesis-profile=fuzz -m hypothesis $(PYTEST_ARGS)

# Damaged files of real models: each gives a typed error or a correct run. `python -m bench fetch` puts the models into the cache.
fuzz-models: $(call STAMP,bench)
	$(PY) -m tests.errors.fuzz_models --count $(FUZZ_MODELS)

$(PY):
	@test -n "$(PYTHON)" || { echo "tensorlang needs Python >= 3.11 on PATH (or make PYTHON=/path/to/python3)"; exit 1; }
	$(PYTHON) -m venv .venv

.venv/.installed-%-$(HASH): | $(PY)
	$(PY) -m pip install --quiet --disable-pip-version-check --editable ".[$(subst +,$(comma),$*)]"
	@touch "$@"

clean:
	rm -rf .venv build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .hypothesis .benchmarks
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
