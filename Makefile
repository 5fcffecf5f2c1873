# The commands of this project. Everything runs in .venv, which `make setup` makes and every other target needs.
SHELL := /bin/bash
PYTHON_IN_VENV := .venv/bin/python
# Test files side by side: many tests wait for programs that they start.
IN_PARALLEL := --numprocesses 2 --dist loadfile

.PHONY: help setup demo test check bench

help:
	@echo 'make demo    set up, then synthesize, preprocess, train on 2 processes, evaluate, measure inference (under 3 minutes)'
	@echo 'make test    set up, then the test suite (under 10 minutes)'
	@echo 'make check   set up, then ruff and the whole test suite, long tests included (an hour at most)'
	@echo 'make bench   set up, then the benchmarks'
	@echo 'make setup   only set up. Settings, remembered until given again:'
	@echo '                 GPU=1              TensorFlow with CUDA and Horovod with NCCL (needs nvcc)'
	@echo '                 TENSORFLOW=2.21.0  another TensorFlow than the one that setup.cfg pins'
	@echo '                 MPI=0              Horovod with gloo only'
	@echo '                 HOROVOD=0          no Horovod: one process only'
	@echo '                 PYTHON=python3.12  the Python to make .venv with'

setup:
	@bash setup/set_up.sh

demo: setup
	@$(PYTHON_IN_VENV) demo/run.py

test: setup
	@$(PYTHON_IN_VENV) -m pytest -m 'not long' $(IN_PARALLEL)

check: setup
	@$(PYTHON_IN_VENV) -m ruff check .
	@$(PYTHON_IN_VENV) -m pytest $(IN_PARALLEL)

bench: setup
	@shopt -s nullglob; benches=(bench/*.py); \
	if [ $${#benches[@]} = 0 ]; then echo 'make bench: there is no bench/*.py yet' >&2; exit 1; fi; \
	for bench in "$${benches[@]}"; do echo "== $$bench"; $(PYTHON_IN_VENV) "$$bench" || exit 1; done
