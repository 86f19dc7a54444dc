# nsa-serve: everything a developer types. `make help` lists it.
SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

MODEL     ?= models/nsa-story-27m
HTTP_PORT ?= 8000
GRPC_PORT ?= 9000
ARGS      ?=
SECONDS_PER_TARGET = $(if $(filter command line,$(origin SECONDS)),$(SECONDS),60)
PRESET    ?= cpu-release
JOBS      ?= $(shell nproc)

BUILD  := build/$(PRESET)
PYTHON := .venv/bin/python
SOURCES = $(shell git ls-files '*.h' '*.cc' '*.cu' '*.cuh')

help:  ## list the targets
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /\1|/' | column -t -s '|' || \
	  grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST)

serve: server  ## build and serve MODEL: HTTP on HTTP_PORT, gRPC on GRPC_PORT; ARGS="..." for more flags
	@exec $(BUILD)/bin/nsa-server --model=$(MODEL) --http-port=$(HTTP_PORT) --grpc-port=$(GRPC_PORT) $(ARGS)

demo: server  ## plant a sentence in a long chapter and ask the running server for it
	@python3 tools/demo.py $(BUILD) $(MODEL)

test: build venv test-packages  ## build and run every test; ends with a count
	@$(PYTHON) tools/run_tests.py $(BUILD)

test-asan:  ## the same tests under AddressSanitizer and UndefinedBehaviorSanitizer
	@$(MAKE) test PRESET=cpu-debug

test-tsan:  ## the same tests under ThreadSanitizer
	@$(MAKE) test PRESET=cpu-tsan

test-deploy: server venv test-packages  ## only the tests of deploy/
	@cmake --build $(BUILD) -j $(JOBS) --target serving_bench
	@NSA_BUILD_DIR=$(BUILD) $(PYTHON) -m pytest -q tests/deploy

test-image: venv  ## as root: build the container image (buildah, no daemon) and run it read-only
	@tools/install_packages.sh image
	@$(PYTHON) tests/deploy/docker/build_image.py

test-training: packages build/training/.ready  ## tests of training/, in an environment with PyTorch (gigabytes)
	@build/training/bin/python -m pytest -q tests/training

fuzz:  ## run each fuzz target for SECONDS (60), under AddressSanitizer and UndefinedBehaviorSanitizer (clang)
	@tools/install_packages.sh fuzz
	@$(MAKE) fuzz-programs PRESET=fuzz
	@python3 tools/fuzz.py build/fuzz $(SECONDS_PER_TARGET)

cuda:  ## build the server and its tests with the CUDA backend (needs nvcc, no GPU)
	@$(MAKE) cuda-programs PRESET=cuda-release

bundle:  ## build/cuda-release/bundle: programs and libraries for a GPU machine without the build's tools
	@$(MAKE) build PRESET=cuda-release
	@python3 tools/bundle.py build/cuda-release

test-gpu: bundle  ## on a machine with a GPU: kernels, models and server on it; ends with a count
	@python3 tools/test_gpu.py build/cuda-release/bundle $(MODEL)

bench: build venv  ## CPU kernels, engine and server, measured in one run
	@$(PYTHON) tools/run_bench.py $(BUILD) $(MODEL)

format:  ## clang-format every source
	@tools/install_packages.sh lint
	@clang-format -i $(SOURCES)

lint: configure  ## clang-format (check only) and clang-tidy on every source
	@tools/install_packages.sh lint
	@clang-format --dry-run --Werror $(SOURCES)
	@cmake --build $(BUILD) -j $(JOBS) --target nsa_proto
	@git ls-files '*.cc' ':!kernels/cuda' ':!*_cuda.cc' ':!bench/kernels/gpu' ':!tests/fuzz/entry.cc' | xargs -P $(JOBS) -n 4 clang-tidy -quiet -p $(BUILD)

clean:  ## remove build folders and the Python environment
	@rm -rf build .venv

# Steps behind the targets above. --------------------------------------------------------------------------------

packages:
	@tools/install_packages.sh build

test-packages:
	@tools/install_packages.sh test

configure: packages
	@[ -f $(BUILD)/build.ninja ] || cmake --preset $(PRESET) --log-level=WARNING

build: configure
	@cmake --build $(BUILD) -j $(JOBS)

fuzz-programs: configure
	@cmake --build $(BUILD) -j $(JOBS) --target fuzz_programs

cuda-programs: configure
	@cmake --build $(BUILD) -j $(JOBS) --target nsa-server kernels_test model_test \
	  nsa_gpu_capi gpu_engine_bench constrained_step_bench prefill_bench branches_bench linear_bench small_bench

server: configure
	@cmake --build $(BUILD) -j $(JOBS) --target nsa-server nsa-cli

venv: packages .venv/.ready

.venv/.ready: tests/requirements.txt tests/deploy/helm/requirements.txt
	@echo "Making the Python environment of the tests (.venv)"
	@python3 -m venv .venv
	@$(PYTHON) -m pip install -q --disable-pip-version-check -r tests/requirements.txt
	@$(PYTHON) -m pip install -q --disable-pip-version-check --no-deps -r tests/deploy/helm/requirements.txt
	@touch $@

build/training/.ready: training/requirements.txt
	@echo "Making the Python environment of training/ (build/training)"
	@python3 -m venv build/training
	@build/training/bin/python -m pip install -q --disable-pip-version-check -r training/requirements.txt
	@touch $@

.PHONY: help serve demo test test-asan test-tsan test-deploy test-image test-training fuzz cuda bundle test-gpu bench format lint clean packages test-packages configure build fuzz-programs cuda-programs server venv
