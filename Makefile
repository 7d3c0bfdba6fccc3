# Two commands: `make demo` (the whole chain on the embedded world) and
# `make test`. Both build .venv first; neither reinstalls while setup.py is
# unchanged. Another interpreter: make demo PYTHON=/path/to/python3
.DELETE_ON_ERROR:
.SUFFIXES:
.PHONY: demo test test-fast faults speed lint types format clean help oracles oracles-env

VENV := .venv
BIN := $(VENV)/bin
PYTEST := $(BIN)/python -m pytest
ARGS ?=
# Environments of other people's programs, for `make oracles` only.
ORACLES := .venv-oracles
REWARDBENCH := .venv-rewardbench
# torch without CUDA; empty where the usual index is all there is.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu
# Two workers: tests are bound by tracing in Python, one core each.
WORKERS ?= 2

help:
	@echo 'make demo       install into $(VENV), run the tiny chain, report in runs/tiny/report/index.html'
	@echo 'make test       install into $(VENV), run all tests (ARGS="-k name" chooses)'
	@echo 'make test-fast  the tests not marked slow'
	@echo 'make faults     kill -9 at random moments, full disks and the like, for an hour or so (tests/faults/README.md; ARGS="--kills=20")'
	@echo 'make speed      the benchmarks, beside torch, transformers, trl and mergekit; the tables of the READMEs (ARGS="--parts=training")'
	@echo 'make lint       ruff check and ruff format --check;  make types: pyright;  make format: rewrite'
	@echo 'make oracles    transformers, TRL, mergekit and RewardBench on our exports, each in its own environment (tests/oracles/README.md)'
	@echo 'make clean      remove the environments and caches (runs/ stays)'

demo: $(VENV)/.installed
	@$(BIN)/warm --config=configs/tiny.py --workdir=runs/tiny $(ARGS)

test: $(VENV)/.installed-test
	@$(PYTEST) -n $(WORKERS) $(ARGS)

test-fast: $(VENV)/.installed-test
	@$(PYTEST) -n $(WORKERS) -m 'not slow' $(ARGS)

faults: $(VENV)/.installed-test
	@$(BIN)/python tests/faults/kills.py --workdir=runs/faults $(ARGS)
	@$(BIN)/python tests/faults/disks.py --workdir=runs/faults

speed: $(VENV)/.installed-test oracles-env
	@HF_HUB_OFFLINE=1 $(BIN)/python -m experiments.speed.run --peers=$(ORACLES)/bin/python $(ARGS)
	@$(BIN)/python -m experiments.speed.run --table

lint: $(VENV)/.installed-dev
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .

types: $(VENV)/.installed-dev
	@$(BIN)/pyright --pythonpath $(BIN)/python

format: $(VENV)/.installed-dev
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

clean:
	rm -rf $(VENV) $(ORACLES) $(REWARDBENCH) build dist *.egg-info .pytest_cache .ruff_cache

# A name on PATH may be a shim that does not run, a Python too old, or one
# without venv (Debian's python3 before python3-venv): each is tried out.
USABLE := import sys, venv, ensurepip; sys.exit(sys.version_info < (3, 11))
define make_venv
$(BIN)/python -c '$(USABLE)' 2>/dev/null && $(BIN)/python -m pip --version >/dev/null 2>&1 || { \
  for p in $(if $(PYTHON),'$(PYTHON)',python3.12 python3.13 python3.11 python3 python); do \
    "$$p" -c '$(USABLE)' >/dev/null 2>&1 && found="$$p" && break; \
  done; \
  test -n "$$found" || { echo 'make: no usable Python 3.11 or newer (with the venv module) found$(if $(PYTHON), at $(PYTHON)); install one or name it: make $(MAKECMDGOALS) PYTHON=/path/to/python3' >&2; exit 1; }; \
  echo "Creating $(VENV) with $$("$$found" --version)"; \
  "$$found" -m venv --clear $(VENV); \
}
endef
define install
@$(make_venv)
@echo 'Installing warm_jax$(1) into $(VENV) (about 1.1 GB, a minute or two)'
@$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.$(1)'
endef

$(VENV)/.installed: setup.py
	$(call install,[tb])
	@touch $@

$(VENV)/.installed-test: setup.py
	$(call install,[tb$(comma)nb$(comma)test])
	@touch $(VENV)/.installed $@

$(VENV)/.installed-dev: setup.py
	$(call install,[tb$(comma)dev])
	@touch $(VENV)/.installed $@

# Unusual checkpoints by torch -> our imports and exports -> the checks.
ORACLE_OUT := build/oracles
oracles: export WARM_ORACLES := $(ORACLE_OUT)
oracles: export HF_HUB_OFFLINE := 1
oracles: $(VENV)/.installed-test oracles-env $(REWARDBENCH)/.installed
	@$(ORACLES)/bin/python tests/oracles/make_odd.py --out $(ORACLE_OUT)/odd
	@$(BIN)/python tests/oracles/export_all.py --out $(ORACLE_OUT)
	@$(ORACLES)/bin/python -m pytest -c tests/oracles/checks.ini tests/oracles \
	  --ignore=tests/oracles/check_rewardbench.py $(ARGS)
	@$(REWARDBENCH)/bin/python -m pytest -c tests/oracles/checks.ini \
	  tests/oracles/check_rewardbench.py $(ARGS)

oracles-env: $(ORACLES)/.installed

define install_oracles
@$(make_venv)
@echo 'Installing $< into $(VENV) (some 2 GB, minutes)'
@$(BIN)/python -m pip install --quiet --disable-pip-version-check \
  $(if $(TORCH_INDEX),--extra-index-url $(TORCH_INDEX)) --requirement $<
@touch $@
endef

# make_venv works on these two names; here they stand for another environment.
$(ORACLES)/.installed: VENV := $(ORACLES)
$(ORACLES)/.installed: BIN := $(ORACLES)/bin
$(ORACLES)/.installed: tests/oracles/requirements.txt
	$(install_oracles)

$(REWARDBENCH)/.installed: VENV := $(REWARDBENCH)
$(REWARDBENCH)/.installed: BIN := $(REWARDBENCH)/bin
$(REWARDBENCH)/.installed: tests/oracles/requirements-rewardbench.txt
	$(install_oracles)

comma := ,
