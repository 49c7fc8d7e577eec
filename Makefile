# Every target works from a fresh clone: it installs what it needs, or says what to install.

VENV := .venv
RUN := $(VENV)/bin

.PHONY: demo test check clean

demo: $(VENV)/.demo  ## plan, apply and observe a domain in the embedded sandbox
	@echo '$$ translator plan fixtures/demo/web/domain.xml'
	@$(RUN)/translator plan fixtures/demo/web/domain.xml
	@echo
	@echo '$$ translator apply --sandbox fixtures/demo/web/domain.xml'
	@$(RUN)/translator apply --sandbox fixtures/demo/web/domain.xml

test: $(VENV)/.test system-packages  ## everything that CI runs
	$(RUN)/ruff check
	$(RUN)/ruff format --check
	$(RUN)/mypy
	$(RUN)/pytest

check: $(VENV)/.test  ## what needs no server: a minute's worth
	$(RUN)/ruff check
	$(RUN)/ruff format --check
	$(RUN)/mypy
	$(RUN)/pytest -q -x --deselect tests/test_hosts.py --deselect tests/test_apply.py

.PHONY: system-packages
system-packages:
	@.ci/system-packages

$(VENV)/.demo: pyproject.toml .ci/bootstrap
	@.ci/bootstrap $(VENV) .
	@touch $@

$(VENV)/.test: pyproject.toml .ci/bootstrap
	@.ci/bootstrap $(VENV) '.[dev]'
	@touch $@ $(VENV)/.demo

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
