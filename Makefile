# make demo   PromptSync on drawings it has never seen: a table in this terminal and a page to open
# make exercises   the coursework without its solutions, to notebooks/exercises/release
# make test   every test and every notebook; ARGS="-k clip" passes options to pytest
# make test-machines   the tests that compare numbers, as other processors round; ARGS="--help" shows options
# All make .venv or use the one that is there, and install into it only when pyproject.toml has changed.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
    "$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; break; }; done)
VENV_PYTHON := .venv/bin/python
# the name holds the folder, so that a moved checkout is installed anew
STAMP := .venv/installed-$(shell pwd | cksum | cut -d ' ' -f 1)
NOTEBOOKS := $(wildcard notebooks/*.ipynb)
# one thread each: two small jobs side by side are faster than one job on two threads
WORKERS ?= 2

# Jupyter looks for kernels here first: no kernel of the user's can stand in for the one of .venv
export JUPYTER_PATH := $(CURDIR)/.venv/share/jupyter
unexport PYTHONPATH PYTHONHOME

.PHONY: demo exercises test test-machines help

help:
	@sed -n '1,5s/^# //p' Makefile

demo: $(STAMP)
	@mkdir -p results
	$(VENV_PYTHON) -m papermill notebooks/07_promptsync.ipynb results/demo_07.ipynb -k python3 -p dataset sketch
	@$(VENV_PYTHON) -m nbconvert --to html --log-level WARN results/demo_07.ipynb
	@echo
	@$(VENV_PYTHON) benchmarks/show_cell.py results/demo_07.ipynb accuracy
	@echo
	@echo "The whole story, with pictures: open results/demo_07.html in a browser."

exercises: $(STAMP)
	cd notebooks/exercises && for name in source/*; do \
	    PATH="$(CURDIR)/.venv/bin:$$PATH" nbgrader generate_assignment --create --log-level WARN \
	        $$(basename "$$name") || exit; done
	@echo "The assignments are in notebooks/exercises/release: .venv/bin/jupyter lab notebooks/exercises/release"

test: $(STAMP)
	OMP_NUM_THREADS=1 $(VENV_PYTHON) -m pytest tests $(NOTEBOOKS) -n $(WORKERS) --dist loadfile --nbval-lax \
	    --nbval-current-env --nbval-cell-timeout=600 $(ARGS)

test-machines: $(STAMP)
	$(VENV_PYTHON) tests/machines.py $(ARGS)

$(STAMP): pyproject.toml
	@if [ -z "$(PYTHON)" ]; then \
	    echo "minipsync needs Python 3.11 or newer, and none was found: make PYTHON=/path/to/python" >&2; exit 1; fi
	@$(VENV_PYTHON) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear .venv
	$(VENV_PYTHON) -m pip install -e ".[notebooks,data,dev]"
	@# A CPU-only torch beside a torchvision built for CUDA cannot be imported: take the torch that belongs to it.
	@$(VENV_PYTHON) -c "import torchvision" || { \
	    version="$$($(VENV_PYTHON) -c "from importlib.metadata import version; print(version('torch').split('+')[0])")"; \
	    echo "torch and torchvision are not of one build: installing torch $$version from the index"; \
	    $(VENV_PYTHON) -m pip install "torch===$$version" && $(VENV_PYTHON) -c "import torchvision"; }
	@touch $(STAMP)
