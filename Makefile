# `make demo` and `make test` set up .venv from nothing, then do their job. PYTHON chooses the interpreter.
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
JOBS   ?= 2
FIGURES := $(CURDIR)/.figures

.PHONY: help install demo test test-slow reliability audit mutants lint types floors unit smoke docs wheel format clean
help:
	@echo "make demo        the main job on data made on the spot: data, behavior model, BCQ, score, plot"
	@echo "make test        every check: ruff, mypy, the floors of the house, the tests, the site"
	@echo "make smoke       the smallest suite and its report: two minutes"
	@echo "make docs        build the site into site/ without a network; a broken link is an error"
	@echo "make test-slow   the tests that take minutes, and the table of docs/reliability.md"
	@echo "make reliability the matrix of docs/reliability.md; CASES=20000 hostile inputs"
	@echo "make audit       bandit on the code, pip-audit on the packages (needs the network)"
	@echo "make mutants     how many changes of four modules the tests notice (hours; NAMES='offline_vi.types*' chooses)"
	@echo "make format      rewrite the code as ruff wants it"
	@echo "make wheel       build the wheel and try it in a fresh environment outside the checkout"

install: $(STAMP)
$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info; sys.exit(0 if (3, 11) <= v[:2] else "offline_vi needs Python 3.11 or newer, this is %d.%d" % v[:2])'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[mujoco,flows,report,export,test,docs]'
	@touch $(STAMP)

demo: $(STAMP)
	$(BIN)/offline-vi demo

test: lint types floors unit smoke docs

# changes the code in mutants/, runs the tests against each change; NAMES chooses, e.g. NAMES='offline_vi.types*'
NAMES ?=
mutants: $(STAMP)
	$(PYTHON) -m venv .venv-mutants
	.venv-mutants/bin/python -m pip install --quiet mutmut
	$(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))' > $$(.venv-mutants/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/base.pth
	env -u PYTHONPATH OMP_NUM_THREADS=1 HYPOTHESIS_PROFILE=mutants .venv-mutants/bin/mutmut run $(if $(NAMES),'$(NAMES)')
	.venv-mutants/bin/mutmut results
lint: $(STAMP)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
types: $(STAMP)
	$(BIN)/mypy offline_vi tests
floors: $(STAMP)
	$(BIN)/lint-imports
unit: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n $(JOBS)
smoke: $(STAMP)
	rm -rf runs/benchmark-smoke
	$(BIN)/offline-vi benchmark smoke --jobs $(JOBS)
	$(BIN)/offline-vi report runs/benchmark-smoke
docs: $(STAMP)
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet
	@echo "open site/index.html"
test-slow: $(STAMP)
	rm -f $(FIGURES)
	OMP_NUM_THREADS=1 OFFLINE_VI_FIGURES=$(FIGURES) $(BIN)/python -m pytest -n $(JOBS) -m slow
	$(MAKE) reliability
# the rows of the matrix that every push tests, then the table; figures of slow tests stay in it
CASES ?= 20000
reliability: $(STAMP)
	OMP_NUM_THREADS=1 OFFLINE_VI_CASES=$(CASES) OFFLINE_VI_FIGURES=$(FIGURES) $(BIN)/python -m pytest -n $(JOBS) $$($(BIN)/python tests/matrix.py)
	OMP_NUM_THREADS=1 OFFLINE_VI_CASES=$(CASES) $(BIN)/python -m pytest -n $(JOBS) tests/reliability
	$(BIN)/python tests/matrix.py $(FIGURES) docs/reliability.md
	OMP_NUM_THREADS=1 $(BIN)/python tests/reliability/measured.py docs/reliability.md
audit: $(STAMP)
	$(PYTHON) -m venv .venv-audit
	.venv-audit/bin/python -m pip install --quiet bandit pip-audit
	.venv-audit/bin/bandit -q -r -c pyproject.toml offline_vi algorithms datasets scripts
	.venv-audit/bin/pip-audit --path $$($(BIN)/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
wheel: $(STAMP)
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m slow tests/house/test_house.py
format: $(STAMP)
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
clean:
	rm -rf $(VENV) .venv-audit .venv-mutants mutants site .figures build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
