# Two commands on a fresh machine: `make demo` and `make test`.  Each finds its environment or sets it up the first
# time (tools/environment.py); nothing is installed anywhere but in the user's cache.

PYTHON ?= python3
export PYTHONPATH := $(CURDIR)/src
export PYTHONDONTWRITEBYTECODE := 1

.PHONY: test test-long lint demo bench bench-pairs reliability docs

test: lint  ## all checks, as CI runs them
	@python="$$($(PYTHON) tools/environment.py test)" && "$$python" -m pytest

test-long: lint  ## and the slow ones: long property tests, large files
	@python="$$($(PYTHON) tools/environment.py test)" && "$$python" -m pytest -m "long or not long"

lint:  ## style and types; the floors and file sizes are tests/test_architecture.py
	@python="$$($(PYTHON) tools/environment.py test)" \
	&& "$$python" -m ruff check . \
	&& "$$python" -m ruff format --check . \
	&& "$$python" -m mypy

demo:  ## the main job on real ImageNet weights and photos
	@python="$$($(PYTHON) tools/environment.py demo)" && "$$python" demo/demo.py

bench:  ## measure against torch and safetensors, write docs/benchmarks.md
	@python="$$($(PYTHON) tools/environment.py bench)" && "$$python" -m benchmarks

bench-pairs:  ## transfer between independent implementations, beside other tools; writes docs/matching.md
	@python="$$($(PYTHON) tools/environment.py pairs)" && "$$python" -m benchmarks.pairs \
	&& "$$python" -m pytest -W default benchmarks/pairs/test_round_trip.py

reliability:  ## crash, kill, fill and damage, write docs/reliability.md; mounting needs root
	@python="$$($(PYTHON) tools/environment.py test)" && "$$python" -m reliability

docs:  ## write the pages that are generated from the code
	@python="$$($(PYTHON) tools/environment.py test)" && "$$python" tools/diagnostics_doc.py
