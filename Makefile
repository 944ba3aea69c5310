# make demo   PromptSync on drawings it has never seen, a table and a page to open; DATASET=v2 takes others
# make exercises   the coursework without its solutions, to notebooks/exercises/release
# make test   every test and every notebook; ARGS="-k clip" passes options to pytest
# make test-machines   the tests that compare numbers, as other processors round; ARGS="--help" shows options
# make test-oldest   tests and the demo with the oldest versions that pyproject.toml allows, in .venv-oldest
# make docs   the API reference from the docstrings, to docs/api
# make book   notebooks, guides and API reference as one site to read in a browser, to build/book
# make types   the type checker on the package
# make online AT=you/minipsync   the repository's address into the links to Colab and Binder (docs/online.md)
# make constraints   make test, and if all passed the versions of .venv to constraints.txt
# All but test-oldest make .venv or use it, and install into it only when pyproject.toml has changed.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11 python; do \
    "$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; break; }; done)
VENV := .venv
RESULTS := results
DATASET := sketch
VENV_PYTHON := $(VENV)/bin/python
# the name holds the folder, so that a moved checkout is installed anew
STAMP := $(VENV)/installed-$(shell pwd | cksum | cut -d ' ' -f 1)
BOOK_STAMP := $(STAMP)-book
NOTEBOOKS := $(wildcard notebooks/*.ipynb)
# one thread each: two small jobs side by side are faster than one job on two threads
WORKERS ?= 2

# Jupyter looks for kernels here first: no kernel of the user's can stand in for the one of the environment
export JUPYTER_PATH := $(CURDIR)/$(VENV)/share/jupyter
unexport PYTHONPATH PYTHONHOME

.PHONY: demo exercises test test-machines test-oldest docs book types online constraints help

help:
	@sed -n '1,11s/^# //p' Makefile

demo: $(STAMP)
	@mkdir -p $(RESULTS)
	$(VENV_PYTHON) -m papermill notebooks/07_promptsync.ipynb $(RESULTS)/demo_07.ipynb -k python3 \
	    -p dataset $(DATASET) -p records $(RESULTS)/records
	@$(VENV_PYTHON) docs/build_page.py $(RESULTS)/demo_07.ipynb
	@echo
	@$(VENV_PYTHON) benchmarks/show_cell.py $(RESULTS)/demo_07.ipynb accuracy
	@echo
	@echo "The whole story, with pictures: open $(RESULTS)/demo_07.html in a browser."

exercises: $(STAMP)
	cd notebooks/exercises && for name in source/*; do \
	    PATH="$(CURDIR)/.venv/bin:$$PATH" nbgrader generate_assignment --create --log-level WARN \
	        $$(basename "$$name") || exit; done
	@echo "The assignments are in notebooks/exercises/release: .venv/bin/jupyter lab notebooks/exercises/release"

test: $(STAMP)
	OMP_NUM_THREADS=1 $(VENV_PYTHON) -m pytest tests $(NOTEBOOKS) -n $(WORKERS) --dist loadfile --nbval-lax \
	    --nbval-current-env --nbval-cell-timeout=600 $(ARGS)

# Made anew each time: what lies beside the oldest versions is chosen by pip, and changes. Old versions have no
# wheels for new interpreters, so the interpreter is the oldest, too.
test-oldest:
	@python3.11 --version || { echo "make test-oldest needs python3.11, pyproject.toml's oldest" >&2; exit 1; }
	rm -rf results/oldest
	python3.11 -m venv --clear .venv-oldest
	.venv-oldest/bin/python tests/versions.py >.venv-oldest/floors.txt
	$(MAKE) test demo VENV=.venv-oldest PIP_OPTIONS="-c .venv-oldest/floors.txt" RESULTS=results/oldest \
	    NOTEBOOKS= ARGS='-m "not slow" $(ARGS)'

docs: $(STAMP)
	rm -rf docs/api
	$(VENV_PYTHON) docs/build_api.py docs/api
	@echo "The API reference: open docs/api/index.html in a browser."

# Only the first time is anything installed: after that no network is needed.
book: $(BOOK_STAMP)
	rm -rf build/book
	$(VENV_PYTHON) docs/build_book.py build/book
	@echo "No link is broken. Open build/book/index.html in a browser; it needs no network."

types: $(STAMP)
	$(VENV_PYTHON) -m mypy $(ARGS)

# `sed -i.bak` is what the sed of Linux and that of macOS both understand.
online:
	@case "$(AT)" in */*) ;; *) echo "make online AT=owner/repository, as AT=you/minipsync" >&2; exit 1;; esac
	sed -i.bak 's#OWNER/REPOSITORY#$(AT)#g' docs/online.md
	rm docs/online.md.bak

# Without the +cpu of 2.13.0+cpu: a build for one kind of machine is not for the others.
constraints: test $(BOOK_STAMP)
	echo "# \`make test\` passed with these, on $$($(VENV_PYTHON) --version)" >constraints.txt
	$(VENV_PYTHON) -m pip list --format freeze --exclude-editable --exclude pip \
	    | sed 's/+.*//' >>constraints.txt

test-machines: $(STAMP)
	$(VENV_PYTHON) tests/machines.py $(ARGS)

$(STAMP): pyproject.toml
	@if [ -z "$(PYTHON)" ]; then \
	    echo "minipsync needs Python 3.11 or newer, and none was found: make PYTHON=/path/to/python" >&2; exit 1; fi
	@$(VENV_PYTHON) -m pip --version >/dev/null 2>&1 || $(PYTHON) -m venv --clear $(VENV)
	$(VENV_PYTHON) -m pip install -e ".[notebooks,data,dev]" $(PIP_OPTIONS)
	@# A CPU-only torch beside a torchvision built for CUDA cannot be imported: take the torch that belongs to it.
	@$(VENV_PYTHON) -c "import torchvision" || { \
	    version="$$($(VENV_PYTHON) -c "from importlib.metadata import version; print(version('torch').split('+')[0])")"; \
	    echo "torch and torchvision are not of one build: installing torch $$version from the index"; \
	    $(VENV_PYTHON) -m pip install "torch===$$version" && $(VENV_PYTHON) -c "import torchvision"; }
	@touch $(STAMP)

$(BOOK_STAMP): $(STAMP)
	$(VENV_PYTHON) -m pip install -e ".[book]" $(PIP_OPTIONS)
	@touch $(BOOK_STAMP)
