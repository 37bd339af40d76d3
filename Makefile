# GME Foundry. `make pipeline` runs everything on the embedded default; `make test` proves it; `make help` lists the rest.
SHELL := /bin/bash
.DEFAULT_GOAL := help
PYTHON ?= python3
UV_VERSION := 0.13.9
CHECKOV_VERSION := 3.3.30
CLIENT_VERSIONS := openai==3.57.0 langchain-openai==1.7.4 litellm==1.110.2 llama-index-core==0.14.25
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
CLIENTS ?= $(VENV)/clients
CONFIG ?= configs/tiny.yaml
# What `make pipeline` and `make test` need. A new dependency goes into an extra that is not here, unless one of the two needs it.
EXTRAS := atlas synthesis train eval serve pipeline s3 postgres release docs dev
# What slow tests need beside.
SLOW_EXTRAS := ray
HARDENING_PARTS := faults attacks fuzz kills load
SLOW_READY := $(VENV)/.ready-slow

# Two processes of one thread each are faster here than two spinning OpenMP threads; libraries keep their telemetry to themselves.
export OMP_NUM_THREADS ?= 1
export TOKENIZERS_PARALLELISM := false
export DO_NOT_TRACK := 1
export HF_HUB_OFFLINE ?= 1
export PREFECT_SERVER_ANALYTICS_ENABLED := false
export GX_ANALYTICS_ENABLED := false
export MLFLOW_DISABLE_TELEMETRY := true
export DVC_NO_ANALYTICS := 1

# Wheels that lie in a folder, where pip was told of one.
FIND_LINKS = links="$${UV_FIND_LINKS:-$${PIP_FIND_LINKS:-$$($(BIN)/python -m pip config get global.find-links 2>/dev/null || true)}}"; \
  if [ -n "$$links" ]; then export UV_FIND_LINKS="$$links"; fi
COMPILE = $(BIN)/uv pip compile pyproject.toml $(addprefix --extra ,$(1)) -c $(or $(PINS),requirements.txt -c requirements-slow.txt) \
  --python-version 3.11 --no-annotate --no-header --quiet | grep -vE '^(nvidia|cuda|triton)\b' | sed 's/+cpu$$//'

.PHONY: help setup requirements pipeline starter test test-slow hardening clients check check-infra bench docs dashboard serve-prefect screenshot readme clean clean-all

help: ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 16

setup: $(READY) ## Make the virtual environment with every pinned version (other targets call it)

$(READY): requirements.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "Python 3.11 or newer is needed: make PYTHON=python3.12 $(MAKECMDGOALS)" >&2; exit 2; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv==$(UV_VERSION)
	@echo "Installing $$(grep -c == requirements.txt) pinned packages into $(VENV) ..."
	@$(FIND_LINKS); \
	  $(BIN)/uv pip install --quiet --python $(BIN)/python --compile-bytecode -r requirements.txt && \
	  $(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps -e .
	@touch $(READY)

$(SLOW_READY): requirements-slow.txt $(READY)
	@$(FIND_LINKS); $(BIN)/uv pip install --quiet --python $(BIN)/python -c requirements.txt -r requirements-slow.txt
	@touch $(SLOW_READY)

# What the ordinary torch wheel needs on CUDA machines is left out: the installer adds it where that wheel is the one taken.
requirements: ## Resolve requirements.txt anew from pyproject.toml (PINS=file constrains it)
	@test -x $(BIN)/uv || { $(PYTHON) -m venv $(VENV) && $(BIN)/python -m pip install --quiet uv==$(UV_VERSION); }
	@set -o pipefail; { echo '# Every version, pinned. Made by `make requirements`; install by `make setup`.'; \
	   $(call COMPILE,$(EXTRAS)); } > requirements.new || { rm -f requirements.new; exit 1; }
	@set -o pipefail; { echo '# What slow tests need beside requirements.txt, pinned. Made by `make requirements`; installed by `make test-slow`.'; \
	   $(call COMPILE,$(EXTRAS) $(SLOW_EXTRAS)) | grep -vxFf requirements.new; } > requirements-slow.new || { rm -f requirements*.new; exit 1; }
	@mv requirements.new requirements.txt && mv requirements-slow.new requirements-slow.txt

pipeline: $(READY) ## Run the whole chain on CONFIG (default configs/tiny.yaml): data, training, evaluation, registration, report
	@$(BIN)/gme pipeline --config $(CONFIG)

starter: $(READY) ## Train the checkpoint that the default run starts from anew, for hours (DRY_RUN=1 only says what would run, SHIP=1 ships it)
	@$(BIN)/python -m research.starter $(if $(DRY_RUN),--dry-run) $(if $(SHIP),--ship)

test: check ## Check, then run the tests
	@$(BIN)/python -m pytest -n 2 --dist loadgroup --no-loadscope-reorder -q

test-slow: $(SLOW_READY) ## Run the tests that take long, with what they need beside (those of OpenAI's clients make them first)
	@$(BIN)/python -m pytest -q -m slow

# Every row is a test marked `hardening`; what passed on this source with this seed is not run again. Fuzz measures no time,
# so its tests share the cores.
hardening: $(SLOW_READY) ## Faults, attacks, mutated inputs, kills and load into docs/hardening.md (PART=kills SEED=1 ALL=1)
	@failed=0; for part in $(or $(PART),$(HARDENING_PARTS)); do \
	  HARDENING_SEED=$(or $(SEED),0) ALL=$(ALL) FUZZ_EXAMPLES=$(if $(ALL),38000,3800) PYTHONPATH=tests \
	    $(BIN)/python -m pytest -q -p hardening.plugin --part $$part --timeout 3600 $$([ $$part != fuzz ] || printf %s '-n 2') || [ $$? = 5 ] || failed=1; done; \
	PYTHONPATH=tests $(BIN)/python -m hardening.report && exit $$failed

# What others ask our server with, in an environment of its own: none of it is needed here. LangChain's tokenizer fetches its
# table unless it has it; the one it needs lies in the wheel of llama-index-core.
clients: $(CLIENTS)/.ready ## Install openai, langchain-openai and litellm for `make test-slow`

$(CLIENTS)/.ready: Makefile
	@test -x $(CLIENTS)/bin/python || $(PYTHON) -m venv $(CLIENTS)
	@$(CLIENTS)/bin/python -m pip install --quiet --disable-pip-version-check $(CLIENT_VERSIONS)
	@touch $(CLIENTS)/.ready

check: $(READY) ## Style, layout, import contracts and types: ruff, lint-imports, mypy --strict
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/python tests/contracts/layout.py && $(BIN)/lint-imports && $(BIN)/mypy --num-workers 2

# checkov pins libraries of its own, so it gets an environment of its own; it judges files and asks no network.
check-infra: ## terraform fmt and checkov over infra/terraform
	@terraform fmt -check -recursive infra/terraform
	@test -x $(VENV)/checkov/bin/checkov || { $(PYTHON) -m venv $(VENV)/checkov && $(VENV)/checkov/bin/python -m pip install --quiet checkov==$(CHECKOV_VERSION); }
	@$(VENV)/checkov/bin/checkov --directory infra/terraform --framework terraform --quiet --compact --skip-download

bench: $(READY) ## Measure speed against named peers
	@for bench in benchmarks/bench_*.py; do $(BIN)/python $$bench || exit 1; done

docs: $(READY) ## Build the documentation site into site/
	@NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet && echo "Built: site/index.html. Read it with search: $(BIN)/python -m http.server --directory site"

dashboard: $(READY) ## Open the MLflow and Prefect UIs on what the runs wrote
	@$(BIN)/gme dashboard

serve-prefect: $(READY) ## Start a Prefect server with all deployments and their workers (Ctrl-C stops them)
	@$(BIN)/gme schedules

screenshot: $(READY) ## Photograph the newest report for the README (needs Chromium)
	@$(BIN)/python docs/screenshot.py

readme: $(READY) ## Write the scores of the newest report into the README
	@$(BIN)/python docs/update_readme.py

clean: ## Remove what runs made (data, checkpoints, reports, records); keep the environment
	rm -rf data checkpoints runs reports dist site .pytest_cache .mypy_cache .ruff_cache .import_linter_cache

clean-all: clean ## Remove the environment and the DVC store too
	rm -rf $(VENV) .dvc/cache .dvc/tmp dvc-store
