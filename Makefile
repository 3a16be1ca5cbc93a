# Two commands are enough: `make music` to hear the model, `make lab` to study it. `make help` lists the rest.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

PROMPT ?= loud happy piano arpeggio, fast
DURATION ?= 8
SEED ?= 1
# Handed over through the environment, unexpanded, so that quotes, spaces and dollar signs in a prompt arrive as typed.
override export PROMPT := $(value PROMPT)
override export DURATION := $(value DURATION)
override export SEED := $(value SEED)

# How many students run which notebook at once: make class-test STUDENTS=12 NOTEBOOK=notebooks/07_generation.ipynb
STUDENTS ?= 6
NOTEBOOK ?= notebooks/00_text_to_music.ipynb

# Which notebooks are run, compared, measured or opened: make browser-test NOTEBOOKS=notebooks/05*.ipynb
NOTEBOOKS ?= notebooks/*.ipynb

.PHONY: help music lab test random-tests notebooks notebook-costs class-test browser-test live-test release-check parity benchmark clean
.DEFAULT_GOAL := help

help:  ## list the targets
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1	/' | expand -t 24

music: $(VENV)/installed-music  ## generate a WAV: make music PROMPT="happy marimba, fast" DURATION=8 SEED=1
	@$(BIN)/musicgen-edu generate --duration="$$DURATION" --seed="$$SEED" -- "$$PROMPT"

lab: $(VENV)/installed-lab  ## open JupyterLab on the notebooks
	@$(BIN)/musicgen-edu lab

# Two files or notebooks at once; what is in one stays together and in order.
PYTEST := $(BIN)/python -m pytest --numprocesses=2 --dist=loadfile
# Every notebook is run, and each of its outputs compared with the stored one.
NBVAL := --nbval --nbval-current-env --nbval-cell-timeout=120 --nbval-sanitize-with=tests/nbval_sanitize.cfg
COMPARE := $(PYTEST) $(NBVAL) $(NOTEBOOKS)

# What the linter reads; notebooks have a layout of their own.
SOURCES := musicgen_edu tests .ci

test: $(VENV)/installed-test  ## lint, then run all tests
	@command -v fluidsynth >/dev/null || echo "FluidSynth is missing: tests that render music are skipped." \
		"On Debian or Ubuntu: sudo apt install fluidsynth fluid-soundfont-gm"
	$(BIN)/python -m ruff check $(SOURCES)
	$(BIN)/python -m ruff format --check $(SOURCES)
	OMP_NUM_THREADS=1 $(PYTEST) $(NBVAL) tests notebooks

# Seeds of the random tests that are drawn: make random-tests TIMES=5
TIMES ?= 50

random-tests: $(VENV)/installed-test  ## run the random tests 50 times over, each time on other examples
	@for seed in $$(seq $(TIMES)); do OMP_NUM_THREADS=1 $(PYTEST) tests -q -m hypothesis --hypothesis-profile=random \
		--hypothesis-seed=$$seed || exit 1; done

notebooks: $(VENV)/installed-lab  ## run all notebooks again and store their outputs
	$(BIN)/python .ci/repository_address.py
	$(BIN)/python .ci/room_links.py
	$(BIN)/python .ci/glossary.py
	$(BIN)/python -m nbconvert --to notebook --execute --inplace --ExecutePreprocessor.timeout=120 \
		--ExecutePreprocessor.record_timing=False --ExecutePreprocessor.store_widget_state=False $(NOTEBOOKS)

notebook-costs: $(VENV)/installed-lab  ## print the seconds and the peak memory of every notebook
	@$(BIN)/python tests/benchmarks/notebooks.py $(NOTEBOOKS)

class-test: $(VENV)/installed-lab  ## run a notebook as a class would, many kernels at once: make class-test STUDENTS=6
	@$(BIN)/python -m musicgen_edu.classroom.class_test --students="$(STUDENTS)" "$(NOTEBOOK)"

browser-test: $(VENV)/installed-browser  ## run all notebooks in a real browser and use their widgets
	@$(BIN)/python tests/browser/run.py $(NOTEBOOKS)

# Not part of `browser-test`: a browser that is kept waiting by other programs spoils sound.
live-test: $(VENV)/installed-browser  ## play live in a real browser, and compare what is heard with what was written
	@$(BIN)/python tests/browser/play_live.py

# What is compared must hold on other processors too.
release-check: $(VENV)/installed-test  ## compare all notebooks as on an older processor, on one thread, without a network
	ATEN_CPU_CAPABILITY=avx2 ONEDNN_MAX_CPU_ISA=AVX2 MKL_ENABLE_INSTRUCTIONS=AVX2 $(COMPARE)
	OMP_NUM_THREADS=1 $(COMPARE)
	$(BIN)/python tests/offline.py $(COMPARE)

parity: $(VENV)/installed-music  ## compare every variant of Meta's family with transformers, offline
	@$(BIN)/python -m musicgen_edu.reality.parity

benchmark: $(VENV)/installed-music  ## print speed and memory as ratios
	@$(BIN)/python tests/benchmarks/run.py

clean:  ## remove the virtual environment and caches; your music stays
	rm -rf $(VENV) build musicgen_edu.egg-info .pytest_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp a set of extras: pip runs again only when the dependencies or their pins have changed.
extras-music :=
extras-lab := [notebooks]
extras-test := [notebooks,train,test]
extras-browser := [notebooks,browser]

$(VENV)/installed-%: pyproject.toml constraints.txt | $(VENV)/bin/python
	$(BIN)/python -m pip install --constraint constraints.txt --editable ".$(extras-$*)"
	@touch $@

$(VENV)/bin/python:
	@$(PYTHON) -m venv $(VENV) || { rm -rf $(VENV); \
		echo "No virtual environment could be made. On Debian or Ubuntu: sudo apt install python3-venv"; exit 1; }
