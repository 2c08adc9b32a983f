# Needs Python 3.11 to 3.13 and make; everything else is installed into .venv at the first call.

VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check -qq

# One more than cores, because tests of a whole Airflow wait much; four at most, because each of them takes memory.
TEST_PROCESSES := $(shell cores=$$(getconf _NPROCESSORS_ONLN 2>/dev/null || echo 1); echo $$((cores < 3 ? cores + 1 : 4)))

# Byte-compiling everything takes longer than downloading it: Python compiles and keeps what it really imports.
unexport PYTHONDONTWRITEBYTECODE

# make takes what stands behind `--` for goals: give each an empty recipe.
ifeq ($(firstword $(MAKECMDGOALS)),demo)
  OPTIONS := $(wordlist 2,$(words $(MAKECMDGOALS)),$(MAKECMDGOALS))
  $(filter --%,$(OPTIONS)): ; @:
  .PHONY: $(filter --%,$(OPTIONS))
endif

.DEFAULT_GOAL := help
.PHONY: help demo test lint up down status clean

help: ## List these commands
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/  make \1|\2/p' $(MAKEFILE_LIST) | column -t -s '|'

demo: $(VENV)/installed ## Run the whole loop on the full April 2026 release; `make demo -- --exit` stops everything at the end
	@$(BIN)/llmcoder demo $(filter --%,$(OPTIONS))

test: $(VENV)/installed-dev ## Run the tests; `make test ARGS="-k ingest"` runs some of them
	@$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder $(ARGS)

lint: $(VENV)/installed-dev ## Check style, imports and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

up: $(VENV)/installed ## Start the embedded PostgreSQL and Airflow
	@$(BIN)/llmcoder up

down: ## Stop them
	@if [ -x $(BIN)/llmcoder ]; then $(BIN)/llmcoder down; fi

status: $(VENV)/installed ## Show what runs
	@$(BIN)/llmcoder status

clean: down ## Stop everything and remove .venv and .llmcoder, with all data of the embedded services
	@rm -rf $(VENV) .llmcoder .pytest_cache .ruff_cache .mypy_cache *.egg-info

$(VENV)/installed: pyproject.toml constraints.txt
	@for python in $(PYTHON) python3.11 python3.12 python3.13 python3 python; do \
	  if "$$python" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; then chosen=$$python; break; fi; \
	done; \
	if [ -z "$$chosen" ]; then \
	  echo "LLMCoder needs Python 3.11, 3.12 or 3.13, and found $$(python3 --version 2>&1 || echo none): install one, or name it: make PYTHON=/path/to/python3.11" >&2; \
	  exit 1; \
	fi; \
	echo "installing into $(VENV) with $$("$$chosen" --version): once, about two minutes"; \
	"$$chosen" -m venv $(VENV)
	@$(PIP) install --upgrade --constraint constraints.txt pip
	@$(PIP) install --no-compile --constraint constraints.txt --editable .
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	@$(PIP) install --no-compile --constraint constraints.txt --editable '.[dev]'
	@touch $@
