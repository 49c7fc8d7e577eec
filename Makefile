# Every target works from a fresh clone: it installs what it needs, or says what to install.

VENV := .venv
RUN := $(VENV)/bin
SARIF := $(VENV)/share/sarif-2.1.0.schema.json

.PHONY: demo test check oracle fuzz bench bench-check docs man dist deb clean

demo: $(VENV)/.demo  ## plan, apply and observe a domain in the embedded sandbox
	@echo '$$ translator plan fixtures/demo/web/domain.xml'
	@$(RUN)/translator plan fixtures/demo/web/domain.xml
	@echo
	@echo '$$ translator apply --sandbox fixtures/demo/web/domain.xml'
	@$(RUN)/translator apply --sandbox fixtures/demo/web/domain.xml

test: $(VENV)/.test $(SARIF) system-packages  ## everything that CI runs
	$(RUN)/ruff check
	$(RUN)/ruff format --check
	$(RUN)/mypy
	$(RUN)/pytest

check: $(VENV)/.test  ## what needs no server: a minute's worth
	$(RUN)/ruff check
	$(RUN)/ruff format --check
	$(RUN)/mypy
	$(RUN)/pytest -q -x --deselect tests/test_hosts.py --deselect tests/test_apply.py

oracle: $(VENV)/.test system-packages  ## random domains for SECONDS from SEED on: the live libvirt's answers and ours
	$(RUN)/python -m tests.oracle --seconds $(or $(SECONDS),60) $(if $(SEED),--seed $(SEED))

bench: $(VENV)/.test  ## measure what is promised, all or NAMES: ratios, each of two measurements of one run
	$(RUN)/python -m tests.benchmarks $(NAMES)

bench-check: $(VENV)/.test  ## measure again, and fail where a ratio is more than a fifth worse than recorded
	$(RUN)/python -m tests.benchmarks --check $(NAMES)

docs: $(VENV)/.test  ## the documentation as a site, in build/docs
	$(RUN)/mkdocs build --quiet

man: $(VENV)/.demo  ## a manual page for each command, in build/man
	$(RUN)/python -m translator.cli.reference build/man

dist: $(VENV)/.test  ## sdist and wheel, in dist
	$(RUN)/python -m hatchling build -d dist

# Built by Debian's Python, whatever stands first on PATH.
deb:  ## a Debian package of what is committed, in build/deb; without manual and completion where Debian lacks modules
	@rm -rf build/deb && mkdir -p build/deb/translator
	git archive HEAD | tar -x -C build/deb/translator
	mv build/deb/translator/packaging/debian build/deb/translator/debian
	@cd build/deb/translator && export PATH=/usr/sbin:/usr/bin:/sbin:/bin && \
	if dpkg-checkbuilddeps; then dpkg-buildpackage -us -uc -b; else \
	    echo "so it is built without manual pages and completion"; dpkg-buildpackage -Pnodoc -us -uc -b; fi

.PHONY: xen
xen: $(VENV)/.test  ## boot a real Xen host in emulation and let real guests judge: all scenarios, or those that NAMES begin; RECORD=1 writes docs/xen.md
	$(RUN)/python -m tests.xenhost $(if $(RECORD),--record) $(NAMES)

.PHONY: system-packages
system-packages:
	@.ci/system-packages

$(VENV)/.demo: pyproject.toml .ci/bootstrap
	@.ci/bootstrap $(VENV) .
	@touch $@

$(VENV)/.test: pyproject.toml .ci/bootstrap
	@.ci/bootstrap $(VENV) '.[dev]'
	@touch $@ $(VENV)/.demo

.PHONY: soak
soak: $(VENV)/.test system-packages  ## crash tests at their full length: 200 kills on each xenstored, every fault on real servers, 1,000 cycles
	$(RUN)/pytest --soak tests/test_kills.py tests/test_recover.py tests/test_contention.py tests/test_soak.py

FUZZ_SECONDS = 60

fuzz: $(VENV)/.test  ## look for documents that break the reader, guided by coverage
	@$(RUN)/python -c 'import atheris' 2>/dev/null || $(RUN)/pip install --quiet --disable-pip-version-check atheris
	@mkdir -p build/fuzz/corpus
	$(RUN)/python -m tests.fuzz.fuzz_document build/fuzz/corpus fixtures \
	    -max_total_time=$(FUZZ_SECONDS) -max_len=10000 -timeout=10 -rss_limit_mb=1024 -artifact_prefix=build/fuzz/

# The official schema of SARIF logs comes with a package of npm's; where npm is missing, the tests that need it are
# skipped and say so; in CI they fail.
$(SARIF):
	@mkdir -p $(@D)
	@npm pack --silent --pack-destination $(@D) @microsoft/sarif-multitool-ts@5.7.0 >/dev/null && \
	tar -xzOf $(@D)/microsoft-sarif-multitool-ts-5.7.0.tgz package/assets/$(@F) >$@.part && mv $@.part $@ || \
	    echo "npm cannot get the official schema of SARIF, so the tests that need it will be skipped" >&2

clean:
	rm -rf $(VENV) build dist .mypy_cache .pytest_cache .ruff_cache .hypothesis
