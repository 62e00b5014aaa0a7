# Everything runs in a virtual environment that is made here; only Python and make are needed.

PYTHON ?= python3
VENV ?= .venv
# Extra arguments, e.g. make test PYTEST_ARGS="-k gemm", make demo DEMO_ARGS="--threads 1", make results RESULTS_ARGS="-k zoo",
# make peers PEERS_ARGS="-k resnet", make peers PEERS_ARGS="--group transformers"
PYTEST_ARGS ?=
DEMO_ARGS ?=
RESULTS_ARGS ?=
PEERS_ARGS ?=
AGREEMENT_ARGS ?=

RAPIDOCR := rapidocr-onnxruntime==1.4.4
PY := $(VENV)/bin/python
PIP := $(PY) -m pip --disable-pip-version-check --quiet

.DELETE_ON_ERROR:
.PHONY: help demo test bench results peers agreement docs lint types format wheel clean

help:
	@echo "make demo    read a picture, classify files, compare two models with onnxruntime"
	@echo "make test    run the tests"
	@echo "make bench   run the benchmarks"
	@echo "make results measure everything beside onnxruntime and write benchmarks/RESULTS.md"
	@echo "make peers   measure networks beside onnxruntime, OpenVINO and MNN and write benchmarks/PEERS.md"
	@echo "make agreement count what agrees with ONNX's own tests and with onnxruntime and write benchmarks/AGREEMENT.md"
	@echo "make docs    write docs/operators.md anew"
	@echo "make lint    check style and types"
	@echo "make format  put the code into the house style"
	@echo "make wheel   build dist/jitrt-*.whl and the source archive"
	@echo "make clean   remove what was made here"

demo: $(VENV)/.demo
	$(PY) -m demo $(DEMO_ARGS)

# Most of the time goes into compiling: two processes share the tests (PYTEST_ARGS="-n 0": none do), each compiles alone.
test: $(VENV)/.test
	JITRT_WORKERS=0 $(PY) -m pytest -n 2 --dist worksteal $(PYTEST_ARGS)

bench: $(VENV)/.bench
	$(PY) -m pytest benchmarks $(PYTEST_ARGS)

results: $(VENV)/.bench
	$(PY) -m benchmarks.results $(RESULTS_ARGS)

peers: $(VENV)/.peers
	$(PY) -m benchmarks.peers $(PEERS_ARGS)

agreement: $(VENV)/.test
	$(PY) -m benchmarks.agreement $(AGREEMENT_ARGS)

docs: $(VENV)/.test
	PYTHONPATH=tests:. $(PY) -m operator_table > docs/operators.md

lint: $(VENV)/.dev types
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

# mypy knows nothing of package-dir: it gets the package as a wheel would have it, made of links.
types: $(VENV)/.dev
	rm -rf build/types
	mkdir -p build/types/jitrt
	ln -s $(CURDIR)/jitrt/* $(CURDIR)/fusion $(CURDIR)/ops build/types/jitrt
	cd build/types && $(abspath $(PY)) -m mypy --config-file $(CURDIR)/pyproject.toml --cache-dir $(CURDIR)/.mypy_cache --package jitrt

format: $(VENV)/.dev
	$(PY) -m ruff check --fix .
	$(PY) -m ruff format .

wheel: $(VENV)/.dev
	rm -rf build/lib build/bdist.*
	$(PY) -m build

clean:
	rm -rf $(VENV) build dist *.egg-info .pytest_cache .ruff_cache .mypy_cache .hypothesis .benchmarks

# The stamp, not the interpreter, says that the environment is complete: an interrupted `venv` is made anew.
$(VENV)/.created:
	$(PYTHON) -m venv --clear $(VENV)
	@touch $@

$(VENV)/.bench $(VENV)/.peers $(VENV)/.demo $(VENV)/.test $(VENV)/.dev: $(VENV)/.%: $(VENV)/.created pyproject.toml
	@echo "installing jitrt[$*] into $(VENV)"
	$(PIP) install --editable ".[$*]"
	$(PIP) install --no-deps --ignore-requires-python $(RAPIDOCR)
	@touch $@
