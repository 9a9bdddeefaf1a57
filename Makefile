# All that a person must know: make demo, make test, make check, make bench, make stack.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check
INSTALL := $(PIP) install --quiet --constraint constraints.txt

.PHONY: demo test check bench stack clean

demo: $(VENV)/.demo ## a small SaaS application on a loopback server, and what its tenants spent
	@$(BIN)/spanledger demo $(ARGS)

test: $(VENV)/.test ## the whole test suite
	$(BIN)/python -m pytest $(ARGS)

check: $(VENV)/.check ## lint and types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy instrumentation processor
	$(BIN)/pyright --pythonpath $(BIN)/python

bench: $(VENV)/.test ## what a metered call costs, in ratios within one run
	$(BIN)/python benchmarks/run.py $(ARGS)

stack: $(VENV)/.demo ## collector, Prometheus, Alertmanager, Redis and the demo's load, on loopback
	$(INSTALL) opentelemetry-exporter-prometheus
	$(BIN)/python dashboards/stack.py $(ARGS)

clean:
	rm -rf $(VENV) build dist

$(VENV)/.venv:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "spanledger needs Python 3.11 or newer; set PYTHON=...")'
	$(PYTHON) -m venv $(VENV)
	$(PIP) install --quiet --upgrade pip
	touch $@

$(VENV)/.demo: $(VENV)/.venv pyproject.toml constraints.txt
	$(INSTALL) --editable '.[demo]'
	touch $@

$(VENV)/.test: $(VENV)/.demo
	$(INSTALL) --group test
	touch $@

$(VENV)/.check: $(VENV)/.test
	$(INSTALL) --group check
	touch $@
