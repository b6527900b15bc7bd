# Each target sets up what it needs. `make help` lists them.
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
UV := $(BIN)/uv
export PYTHONUNBUFFERED = 1

.DEFAULT_GOAL := help

help:  ## Show this list
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 16

run: $(VENV)/.runtime  ## Serve the built-in model on http://127.0.0.1:8000/v1
	$(BIN)/inferno serve $(ARGS)

test: $(VENV)/.dev  ## Run every test that needs no node: units, real servers, a real Kubernetes API server
	@$(BIN)/python -m tests.cluster.build >/dev/null
	@$(BIN)/python -m tests.cluster.build --helm >/dev/null
	$(BIN)/pytest $(ARGS)

unit: $(VENV)/.dev  ## Run the tests that take seconds
	$(BIN)/pytest tests/unit $(ARGS)

lint: $(VENV)/.dev  ## Check style, types and the layering of the packages
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(VENV)/.dev  ## Format the code
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

manifests: $(VENV)/.dev  ## Write the CRD and its copy in the chart from the types, and the plain YAML from the chart
	$(BIN)/python -m inferno_operator.crd crds charts/inferno/files
	$(BIN)/python -m scripts.plain_yaml

docs: $(VENV)/.dev  ## Write the reference pages from the configuration's fields
	$(BIN)/python scripts/reference.py

images:  ## Build both container images with docker, podman or buildah
	$(PYTHON) scripts/build_images.py $(ARGS)

cluster: $(VENV)/.dev  ## Start a whole Kubernetes on this machine, with a node; needs root
	$(BIN)/python -m tests.cluster up

cluster-down: $(VENV)/.dev  ## End it, without a trace
	$(BIN)/python -m tests.cluster down

cluster-test: $(VENV)/.dev  ## Install Inferno on that cluster as users do, and break things; ARGS=tests/node/test_faults.py for some of it
	$(BIN)/python -m tests.node $(ARGS)

bench: $(VENV)/.runtime  ## Compare with llama.cpp's and llama-cpp-python's servers, an hour; ARGS=--quick takes five minutes
	$(BIN)/python -m benchmarks $(ARGS)

bench-step: $(VENV)/.runtime  ## Measure what a step of the engine costs beside the model
	$(BIN)/python -m benchmarks.step $(ARGS)

bench-http: $(VENV)/.runtime  ## Measure what HTTP costs, with an engine that costs nothing
	$(BIN)/python -m benchmarks.http $(ARGS)

bench-operator: $(VENV)/.dev  ## Measure what the operator costs with 1,000 and 10,000 models, half an hour; ARGS="--large 0 --quiet 60" takes two minutes
	$(BIN)/python -m benchmarks.operator $(ARGS)
bench-onnx: $(VENV)/.runtime  ## Compare ONNX models with onnxruntime alone and with infinity; ARGS="--models FOLDER" says where they are
	$(BIN)/python -m benchmarks.onnx $(ARGS)

soak: $(VENV)/.runtime  ## Ten minutes of random requests, after which the memory must be what it was
	$(BIN)/python -m benchmarks.soak $(ARGS)

lock: $(UV)  ## Pin the dependencies by hash; ARGS=--upgrade takes newer ones
	UV=$(UV) requirements/lock.sh $(ARGS)

clean:  ## Remove what was set up here; caches outside the folder stay
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .import_linter_cache

$(UV): requirements/bootstrap.txt
	@echo "Setting up a virtual environment in $(VENV)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Inferno needs Python 3.11 or newer; name one with PYTHON=…"; exit 1; }
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install -q --disable-pip-version-check --require-hashes --only-binary :all: -r requirements/bootstrap.txt
	@touch $@

$(VENV)/.runtime: $(UV) requirements/runtime.txt requirements/build.txt runtime/pyproject.toml
	@$(PYTHON) scripts/install.py runtime
	@touch $@

$(VENV)/.dev: $(UV) requirements/dev.txt requirements/build.txt runtime/pyproject.toml operator/pyproject.toml
	@$(PYTHON) scripts/install.py dev
	@touch $@ $(VENV)/.runtime

.PHONY: help run test unit lint format manifests docs images cluster cluster-down cluster-test bench bench-step bench-http bench-operator bench-onnx soak lock clean
