# Two commands: `make demo` (from weights to a contact sheet) and `make test` (all checks).
# Each makes its own virtual environment and needs nothing but Python 3.11+, make and git.

PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' >/dev/null 2>&1 && { echo $$p; break; }; done)
DEMO_VENV ?= .venv-demo
TEST_VENV ?= .venv-test
OUT ?= out/demo
# The demo's own folder is drawn anew each time; nothing in one that was named is replaced.
REPLACE = $(if $(filter file,$(origin OUT)),--overwrite)
PROMPTS ?= -p "red apple" -p "dog face" -p "rocket" -p "sunflower" -p "heavy black heart" -p "tropical fish" \
	-p "mushroom" -p "alarm clock" -p "banana" -p "penguin" -p "top hat" -p "green apple"

# On Linux and Windows PyPI's torch brings CUDA (gigabytes); the same version without it is on PyTorch's own index, and
# pip prefers it when it sees both. Unreachable or set to nothing: PyPI's is taken. macOS has only the one.
TORCH_INDEX ?= https://download.pytorch.org/whl/cpu

# Tests run in this many processes; a file's tests stay in one. `make test WORKERS=0` runs them all in one, in order.
WORKERS ?= 2

.PHONY: demo test coverage lint docs hooks clean
.DELETE_ON_ERROR:

# $(call venv,DIR,EXTRAS): a new environment with the checkout, editable. The stamp is written last, so that an
# environment that was interrupted is made again.
define venv
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed; set PYTHON=/path/to/python3"; exit 1; }
	rm -rf $(1)
	$(PYTHON) -m venv $(1) || { echo "python3 -m venv failed; on Debian: apt install python3-venv"; exit 1; }
	index="$(TORCH_INDEX)"; \
	if [ -n "$$index" ] && ! $(1)/bin/python -c \
	  "import sys, urllib.request as u; u.urlopen(sys.argv[1] + '/torch/', timeout=10).close()" "$$index" 2>/dev/null; \
	then index=""; fi; \
	$(1)/bin/python -m pip install --quiet --disable-pip-version-check $${index:+--extra-index-url $$index} -e '.[$(2)]'
	@touch $@
endef

$(DEMO_VENV)/.stamp: pyproject.toml
	$(call venv,$(DEMO_VENV),cpu$(comma)build)

$(TEST_VENV)/.stamp: pyproject.toml
	$(call venv,$(TEST_VENV),cpu$(comma)build$(comma)train$(comma)measure$(comma)quality$(comma)serve$(comma)ray$(comma)tensorrt-rtx$(comma)gguf$(comma)docs$(comma)dev)

comma := ,

demo: $(DEMO_VENV)/.stamp
	$(DEMO_VENV)/bin/coolsd-rt build pipelines/emoji.yaml
	$(DEMO_VENV)/bin/coolsd-rt generate engines/emoji $(PROMPTS) --out $(OUT) $(REPLACE)
	$(DEMO_VENV)/bin/coolsd-rt parity engines/emoji
	$(DEMO_VENV)/bin/python -m tools.demo.benchmark engines/emoji
	@echo "images: $(OUT)"

lint: $(TEST_VENV)/.stamp
	$(TEST_VENV)/bin/ruff check .
	$(TEST_VENV)/bin/ruff format --check .
	$(TEST_VENV)/bin/mypy
	$(TEST_VENV)/bin/lint-imports
	$(TEST_VENV)/bin/coolsd-rt schema --check
	$(TEST_VENV)/bin/check-jsonschema --builtin-schema vendor.github-workflows .github/workflows/*.yml
	if git rev-parse --git-dir >/dev/null 2>&1; then \
	PATH="$(abspath $(TEST_VENV))/bin:$$PATH" pre-commit run hygiene --all-files; fi

# The documentation site, in site/. Strict: a link that leads nowhere, or a page that is in no menu, is an error.
# The variable quiets the theme's advice about another generator.
docs: $(TEST_VENV)/.stamp
	NO_MKDOCS_2_WARNING=1 $(TEST_VENV)/bin/mkdocs build --strict --quiet

# The checks of `make lint` that are quick, before each commit of this checkout.
hooks: $(TEST_VENV)/.stamp
	$(TEST_VENV)/bin/pre-commit install

# Modules are compiled first: tests start hundreds of processes, and where Python is told to write no bytecode each would
# compile them again.
test: lint docs
	$(TEST_VENV)/bin/python -m compileall -q coolsd_rt tools
	$(TEST_VENV)/bin/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder $(PYTEST_ARGS)

# Lines and branches that no test runs. Not part of `test`: nothing is decided by it, and tracing each line takes long.
coverage: $(TEST_VENV)/.stamp
	$(TEST_VENV)/bin/pytest -n $(WORKERS) --dist loadfile --no-loadscope-reorder --cov --cov-report=term $(PYTEST_ARGS)

clean:
	rm -rf $(DEMO_VENV) $(TEST_VENV) build dist site *.egg-info
