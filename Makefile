# Two commands: `make demo` and `make test`. Each does its own set-up.
# A pipe fails where one of its commands does.
SHELL := /bin/bash -o pipefail
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEMO := out/demo
# One process for each core, so one thread each; one that has no test left takes some of the other's.
PYTEST := OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 --dist worksteal

.PHONY: demo test test-slow coverage nightly check wheels install-test reference-models clean help

help:
	@echo "make demo   compress, measure and report a trained network (about 5 minutes the first time)"
	@echo "make test   run the tests that take less than 2 s each"
	@echo "make test-slow  run the others"
	@echo "make coverage  make test, and which lines it ran"
	@echo "make nightly  run all of them, with more random examples and every pass checked"
	@echo "make reference-models  compress and measure every reference model, rewrite its page"
	@echo "make check  linter, formatter, types, layers"
	@echo "make wheels  build the two wheels into dist/"
	@echo "make install-test  install them as a user does, outside of the repository, and use them"
	@echo "make clean  remove the environment and every output"

$(INSTALLED): pyproject.toml models/pyproject.toml constraints.txt
	$(PYTHON) -m venv $(VENV)
	@# torch first and alone: asked for by another package, the CUDA build would come.
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt torch
	$(BIN)/pip install --quiet --disable-pip-version-check -c constraints.txt -e models -e ".[all,dev]"
	@touch $@

$(DEMO)/result.json: | $(INSTALLED)
	$(BIN)/edgedl compress resnet8-fashion_mnist --recipe static_w8c_a8 \
		--target ort,tflite,tensorrt --out $(DEMO) >/dev/null

demo: $(DEMO)/result.json
	@$(BIN)/edgedl report $(DEMO) --out -
	@echo
	@echo "bundle: $(DEMO)/bundle"
	@echo "report: $(DEMO)/report.html"

test: $(INSTALLED)
	$(PYTEST) -m "not slow"

coverage: $(INSTALLED)
	$(PYTEST) -m "not slow" --cov --cov-report=term:skip-covered

test-slow: $(INSTALLED)
	$(PYTEST) -m slow --durations=25

# All tests, with other and more examples of what is tested on random ones, and every graph pass
# checked on every network. The last lines are kept, with the date and the revision.
NIGHTLY := docs/results/nightly.txt

nightly: $(INSTALLED)
	@date -u +"%Y-%m-%d, `git describe --always`, all tests, HYPOTHESIS_PROFILE=nightly, EDGEDL_CHECK_PASSES=1" >$(NIGHTLY)
	HYPOTHESIS_PROFILE=nightly EDGEDL_CHECK_PASSES=1 $(PYTEST) -q --disable-warnings | tail -n 20 | tee -a $(NIGHTLY)

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	PYTHONPATH=typings $(BIN)/lint-imports

# What an earlier build left in build/ would be packed again.
wheels: $(INSTALLED)
	rm -rf build models/build dist/edgedl*.whl
	$(BIN)/python -m build --wheel --outdir dist .
	$(BIN)/python -m build --wheel --outdir dist models
	rm -rf build models/build

install-test: wheels
	PYTHON=$(PYTHON) .ci/install_from_wheels

# Wants the full data sets: edgedl data fetch cifar10, edgedl data fetch watch.
RESULTS := $(patsubst models/weights/%.json,docs/results/%.json,$(wildcard models/weights/*.json))

docs/results/%.json: models/weights/%.json | $(INSTALLED)
	@mkdir -p docs/results
	rm -rf out/reference/$*
	$(BIN)/edgedl compress $* --recipe default --threads 1 --out out/reference/$* >/dev/null
	cp out/reference/$*/result.json $@

reference-models: $(RESULTS)
	$(BIN)/edgedl models table docs/results --out docs/reference-models.md

clean:
	rm -rf $(VENV) out build dist models/build *.egg-info src/*.egg-info models/*.egg-info
