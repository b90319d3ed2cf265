# One environment, made once from the lock; every target below creates it when it is missing or stale.
PYTHON ?= python3
VENV   ?= .venv
BUILD  ?= build
BIN    := $(VENV)/bin
PY     := $(BIN)/python
# What only this repository knows: the CPU wheel of torch. PyPI's Linux wheel would be the CUDA build.
TORCH_CPU_INDEX ?= https://download.pytorch.org/whl/cpu
# vLLM on a small machine: one OpenMP thread, a small KV cache, nothing fetched.
export OMP_NUM_THREADS ?= 1
export VLLM_CPU_KVCACHE_SPACE ?= 1
export VLLM_NO_USAGE_STATS ?= 1

# Tests that run at once, a file at a time; one that starts an engine takes up to 3 GB.
JOBS ?= 2
AT_ONCE := -n $(JOBS) --dist loadfile

DEMO_ARMS := fcfs,sjf,trail-prompt-c0,trail-c0,trail-c0.2,trail-c0.8,oracle-c0

.DEFAULT_GOAL := help
.PHONY: help env demo observe test check test-fast bench-peak bench-overhead eval fidelity sim sim-quick sim-control \
        e2e e2e-node docs protos lock images release-dry-run clean

help: ## List the targets
	@grep -hE '^[a-z0-9-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 18

env: $(VENV)/.complete ## Create the environment from requirements.lock

$(VENV)/.complete: requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit("Python 3.11 or later is needed, this is " + sys.version.split()[0]) if sys.version_info < (3, 11) else None'
	$(PYTHON) -m venv $(VENV)
	@torch=$$(grep '^torch==' requirements.lock); echo "installing $$torch"; \
	$(PY) -m pip install -q --no-deps "$$torch" 2>/dev/null || $(PY) -m pip install -q --no-deps --index-url $(TORCH_CPU_INDEX) "$$torch"
	$(PY) -m pip install -q --no-deps -r requirements.lock
	$(PY) -m pip install -q --no-deps --no-build-isolation -e .
	@touch $@

demo: env ## Serve the demo model with and without TRAIL and compare
	$(BIN)/trail bench demo --arms $(DEMO_ARMS) --max-tokens 640 --repeats 2 --requests 300 --out $(BUILD)/demo

observe: env ## The demo under load, its traces and metrics in one page (build/observe/)
	$(PY) -m benchmarks.observe --out $(BUILD)/observe

test: check docs ## Everything: style, types, layers, docs, unit tests, real vLLM
	$(PY) -m pytest tests -m "(vllm or slow) and not alone" $(AT_ONCE)
	$(PY) -m pytest tests -m "not vllm and not slow and not alone" $(AT_ONCE)
	$(PY) -m pytest tests -m alone

test-fast: env ## The tests that start no engine
	$(PY) -m pytest tests -m "not vllm and not slow" $(AT_ONCE)

check: env ## Style, types, layers, generated stubs
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=sidecar:operator:. $(BIN)/lint-imports
	$(PY) protos/generate.py --check
	$(PY) images/lock.py --check

bench-peak: env ## A load peak, TRAIL against first come first served (build/bench/peak.json)
	$(PY) -m benchmarks.peak --out $(BUILD)/bench

eval: env ## How good predictions are, against the paper's recipe and the floor (build/eval/)
	$(PY) -m benchmarks.predictors.suite --out $(BUILD)/eval

fidelity: env ## The simulator against real vLLM, arm by arm (build/fidelity/)
	$(PY) -m benchmarks.fidelity --out $(BUILD)/fidelity

sim-control: env ## The controller of c against the best constant c (build/sim/controller.json)
	$(PY) -m benchmarks.control --seeds 101,102,103 --out $(BUILD)/sim

sim: env ## All policies in the simulator, on a fixed grid (build/sim/policies.json); goes on where it stopped
	$(PY) -m benchmarks.policies --out $(BUILD)/sim

sim-quick: env ## The same on two small settings of generated requests
	$(PY) -m benchmarks.policies --quick --out $(BUILD)/sim-quick

bench-overhead: env ## What TRAIL costs the engine (build/bench/overhead.json)
	$(PY) -m benchmarks.overhead --out $(BUILD)/bench

e2e-node: env ## Install and use TRAIL on a real node, with real vLLM (needs root and TRAIL_SHARED)
	TRAIL_E2E_NODE=1 $(PY) -m pytest tests/node -x -s

e2e: env ## Install and use TRAIL on the cluster in KUBECONFIG
	TRAIL_E2E=1 $(PY) -m pytest tests/e2e

docs: env ## README, docs, examples and experiments as a site (build/site); a broken link is an error
	rm -rf $(BUILD)/pages && mkdir -p $(BUILD)/pages
	cp -R --parents README.md CONTRIBUTING.md docs examples benchmarks/README.md benchmarks/results $(BUILD)/pages
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

protos: env ## Regenerate the gRPC stubs
	$(PY) protos/generate.py

lock: ## Resolve the dependencies anew and write requirements.lock
	PYTHON=$(PYTHON) TORCH_CPU_INDEX=$(TORCH_CPU_INDEX) sh requirements.sh
	$(MAKE) env
	$(PY) images/lock.py

images: ## Build the images with docker, podman or buildah (images/build.sh --help)
	@sh images/build.sh

release-dry-run: env ## What a release would push, made in build/release; pushes nothing
	@$(PY) images/release.py $(RELEASE_FLAGS)

clean: ## Remove what was built (the environment stays)
	rm -rf $(BUILD) dist
