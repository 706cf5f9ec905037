# The commands of the project. PYTHON picks the interpreter, for example: make demo PYTHON=python3.10
PYTHON ?= $(shell for version in 3.11 3.10 3.9 3.8 3.12 3.13 3.14; do \
	python$$version -c "import venv, ensurepip" 2>/dev/null && command -v python$$version && break; done)
ifeq ($(strip $(PYTHON)),)
PYTHON := python3
endif

.PHONY: demo rasa test lint build wheels nightly docs matrix clean

demo:  ## A real Rasa tracker store keeps a conversation in an embedded Redis across a restart.
	@$(PYTHON) demo/run.py

rasa:  ## The same with the full server: rasa init, train, rasa run, messages over REST (Python 3.8 to 3.10).
	@$(PYTHON) demo/run.py --full

test:  ## Every test cell that this machine has an interpreter for; a closing table says which ran.
	@$(PYTHON) tests/cells.py $(REQUIRE)

lint:  ## What pre-commit runs.
	@$(PYTHON) tests/cells.py --only lint

docs:  ## The documentation, built and walked through; it is in build/docs then.
	@$(PYTHON) tests/cells.py --only docs

matrix:  ## Each redis-py on each server that a package gives; writes the table of docs/compatibility.md.
	@$(PYTHON) tests/matrix.py

build:  ## An sdist, and a wheel built from it, in dist/, and all that can be checked of a release here.
	@$(PYTHON) tests/cells.py --only build

wheels:  ## The same with a wheel for every Python of this machine, in dist/repaired, tried with each Rasa.
	@$(PYTHON) tests/cells.py --only nightly-wheels

nightly:  ## That, and a wheel for aarch64, tried by qemu-user (Debian, qemu-user-static).
	@$(PYTHON) tests/cells.py --only nightly --workers 1 --require nightly-aarch64

clean:
	rm -rf build dist *.egg-info
