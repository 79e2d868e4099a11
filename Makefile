# `make demo` and `make test` do everything on a fresh machine; CI runs `make check` and `make test`.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DONE := $(VENV)/done

.PHONY: setup demo test test-slow check fmt bench clean

setup: $(DONE)

# torch first: with the pinned build in place nothing else pulls in another one.
$(DONE): pyproject.toml constraints.txt
	@begin=$$(date +%s); set -e; \
	$(PYTHON) -m venv $(VENV); \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt torch; \
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[cli,fast,eval,demo,dev]'; \
	echo $$(( $$(date +%s) - begin )) > $@; \
	echo "set up in $$(cat $@) s; now: source $(VENV)/bin/activate"

demo: setup
	$(BIN)/hedgerow demo --setup-seconds "$$(cat $(DONE))"

test: setup
	$(BIN)/python -m pytest -q -m "not slow"

test-slow: setup
	$(BIN)/python -m pytest -q -m slow

check: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python scripts/shape.py

fmt: setup
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

bench: setup
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt -e '.[bench,fast,ot,lora]'
	for name in packing loader attention loss preference media generate data lora; do $(BIN)/python benchmarks/$$name.py || exit 1; done

clean:
	rm -rf $(VENV) runs
