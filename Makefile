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

.PHONY: demo test lint unit test-deploy bench bench-ops gpu-build test-gpu bench-gpu conformance fuzz fuzz-models clean
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
DEPLOY_PACKAGES := gcc libc6-dev valgrind nodejs qemu-user $(foreach a,aarch64-linux-gnu arm-linux-gnueabihf riscv64-linux-gnu,gcc-$(a)) \
	$(foreach a,arm64 armhf riscv64,libc6-dev-$(a)-cross)

test-deploy: $(call STAMP,test+dev+cuda+opencl)
	@missing=; for c in $(DEPLOY_COMMANDS); do \
		command -v $$c > /dev/null && case $$c in *gcc) echo '#include <stdio.h>' | $$c -E -o /dev/null - 2> /dev/null ;; esac \
			|| missing="$$missing $$c"; \
	done; \
	if [ -n "$$missing" ] && command -v apt-get > /dev/null && [ "$$(id -u)" = 0 ]; then \
		apt-get update -qq && apt-get install -y -qq --no-install-recommends $(DEPLOY_PACKAGES) || true; \
	elif [ -n "$$missing" ]; then echo "missing, and so not tested:$$missing"; fi
	$(PYTEST) -m deploy $(PYTEST_ARGS)
	$(PYTEST) tests/deploy -m "not deploy" $(PYTEST_ARGS)

# Without BENCH_ARGS: models and operators against every peer installed, into bench/results and bench/RESULTS.md.
bench: $(call STAMP,bench)
ifdef BENCH_ARGS
	$(PY) -m bench $(BENCH_ARGS)
else
	$(PY) -m bench models --json bench/results/models.json
	$(PY) -m bench ops --json bench/results/ops.json
	$(PY) -m bench ops --threads 1 --json bench/results/ops_1.json
	$(PY) -m bench markdown
endif

# Per-operator regressions, on pytest-benchmark: serial, and compared with the last saved run where there is one.
bench-ops: $(call STAMP,bench)
	$(PY) -m pytest bench --benchmark-enable --benchmark-only --benchmark-autosave $(PYTEST_ARGS)

# Two halves, since the machine with the GPU may have neither numba nor onnx: `gpu-build` compiles (no GPU needed) into $(GPU),
# a folder to carry; the other two run what is there with any Python that has numpy, and build it first where it is missing.
GPU ?= build/gpu
GPU_PYTHON ?= $(if $(wildcard $(PY)),$(PY),$(PYTHON))
GPU_ARGS ?=

gpu-build: $(call STAMP,bench+cuda+test)
	$(PY) -m bench gpu-build $(GPU) $(GPU_ARGS)

$(GPU)/manifest.json:
	$(MAKE) gpu-build

test-gpu: $(GPU)/manifest.json
	$(GPU_PYTHON) -m bench.gpu.run $(GPU) --check $(GPU_ARGS)

bench-gpu: $(GPU)/manifest.json
	$(GPU_PYTHON) -m bench.gpu.run $(GPU) --json bench/results/gpu.json --markdown bench/RESULTS-gpu.md $(GPU_ARGS)

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
