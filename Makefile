# The commands of this project. Everything runs in .venv, which `make setup` makes and every other target needs.
SHELL := /bin/bash
PYTHON_IN_VENV := .venv/bin/python
# Test files side by side: many tests wait for programs that they start.
IN_PARALLEL := --numprocesses 2 --dist loadfile

# Tests that start no TensorFlow.
QUICK := tests/test_rooms.py tests/test_calls.py tests/test_english.py tests/test_docs.py \
    tests/test_architecture.py tests/dlrm_tf2/test_flags.py tests/dlrm_tf2/test_unused_flags.py \
    tests/dlrm_tf2/sharding/test_plan.py tests/dlrm_tf2/sharding/test_placement.py \
    tests/dlrm_tf2/job/test_planning.py tests/dlrm_tf2/job/test_preflight.py

.PHONY: help setup wheelhouse demo quick test check bench

help:
	@echo 'make demo    set up, then synthesize, preprocess, train on 2 processes, evaluate, measure inference (under 3 minutes)'
	@echo 'make quick   set up, then the tests that need no TensorFlow (under 20 seconds)'
	@echo 'make test    set up, then the test suite (under 10 minutes)'
	@echo 'make check   set up, then ruff, mypy and the whole test suite, long tests included (an hour at most)'
	@echo 'make bench   set up, then the benchmarks'
	@echo 'make setup   only set up. Settings, remembered until given again:'
	@echo '                 GPU=1              TensorFlow with CUDA and Horovod with NCCL (needs nvcc)'
	@echo '                 TENSORFLOW=2.21.0  another TensorFlow than the one that setup.cfg pins'
	@echo '                 MPI=0              Horovod with gloo only'
	@echo '                 HOROVOD=0          no Horovod: one process only'
	@echo '                 PYTHON=python3.12  the Python to make .venv with'
	@echo '                 WHEELHOUSE=DIR     (not remembered) install from this folder, without internet'
	@echo 'make wheelhouse WHEELHOUSE=DIR   set up, then fill this folder'

setup:
	@bash setup/set_up.sh

wheelhouse:
	@bash setup/set_up.sh wheelhouse

demo: setup
	@$(PYTHON_IN_VENV) demo/run.py

quick: setup
	@$(PYTHON_IN_VENV) -m pytest -q -m 'not long' $(IN_PARALLEL) $(QUICK)

test: setup
	@$(PYTHON_IN_VENV) -m pytest -m 'not long' $(IN_PARALLEL)

check: setup
	@$(PYTHON_IN_VENV) -m ruff check .
	@$(PYTHON_IN_VENV) -m ruff format --check .
	@$(PYTHON_IN_VENV) -m mypy
	@$(PYTHON_IN_VENV) -m pytest $(IN_PARALLEL)

bench: setup
	@shopt -s nullglob; benches=(bench/*.py); \
	if [ $${#benches[@]} = 0 ]; then echo 'make bench: there is no bench/*.py yet' >&2; exit 1; fi; \
	for bench in "$${benches[@]}"; do echo "== $$bench"; $(PYTHON_IN_VENV) "$$bench" || exit 1; done
