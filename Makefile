# Bare `make` lists the targets.

PORT ?= 8000
PYTHON ?= python3
PY := .venv/bin/python

.DEFAULT_GOAL := help
.PHONY: help step01 step02 step03 test break exercise grade grade-all mistakes check notebooks screenshots bench lock

help: ## list these targets
	@awk -F ':.*## ' '/^[a-z0-9-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

step01: STEP := step01_jwt_login
step02: STEP := step02_session_middleware
step03: STEP := step03_combined
step01: ## start step 1 on http://127.0.0.1:8000 (PORT=8001 moves it)
step02: ## start step 2
step03: ## start step 3
step01 step02 step03: .venv/steps
	@$(PY) -c "$$MAKE_UP_KEYS" $(STEP)
	@$(PY) -c "$$CAN_START" $(STEP) $(PORT)
	.venv/bin/uvicorn $(STEP).main:app --port $(PORT) --reload --reload-dir $(STEP) --env-file $(STEP)/.env

# Keys that outlive a restart, so that saving a file logs nobody out. Git ignores the file; the tests do not read it.
define MAKE_UP_KEYS
import pathlib, secrets, sys
env = pathlib.Path(sys.argv[1], ".env")
if not env.exists():
    env.touch(mode=0o600)
    env.write_text("".join(f"{name}={secrets.token_urlsafe(32)}\n" for name in ("JWT_SECRET_KEY", "SESSION_SECRET_KEY")))
    print(f"Made up the keys of this step: {env}")
endef
export MAKE_UP_KEYS

# Under --reload uvicorn would go on waiting after a failed start: look first, and stop with the app's own sentence.
define CAN_START
import importlib, socket, sys, dotenv
step, port = sys.argv[1:]
with socket.socket() as server:
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        server.bind(("127.0.0.1", int(port)))
    except (OSError, ValueError, OverflowError):
        sys.exit(f"Port {port} cannot be used, perhaps something else uses it. Choose another: make {step[:6]} PORT=8001")
dotenv.load_dotenv(f"{step}/.env")
importlib.import_module(f"{step}.main")
endef
export CAN_START

test: .venv/steps ## prove the three steps (seconds, offline)
	$(PY) -m pytest tests/test_step01_jwt_login.py tests/test_step02_session_middleware.py tests/test_step03_combined.py

break: .venv/steps ## run a step with a mistake in it: STEP=step01 MISTAKE=... (none: list them; secret: guess which)
	@$(PY) -m tests.classroom.break_it --port $(PORT) $(if $(STEP),--step $(STEP)) $(if $(MISTAKE),--mistake $(MISTAKE))

exercise: .venv/steps ## write a step yourself: STEP=step01 puts it into my/, its important functions taken out
	@$(if $(STEP),,$(error say which step: make $@ STEP=step01))
	@$(PY) -m tests.classroom.write_it --step "$(STEP)"

grade: .venv/steps ## what holds in your app: STEP=step01 APP=a module, folder or URL (HINT=1, 2, 3; WATCH=1; CHECK=1)
	@$(if $(STEP),,$(error say which step: make $@ STEP=step01 APP=my.step01.main:app))
	@$(PY) -m tests.classroom.grade --step "$(STEP)" --app "$(or $(APP),my.$(STEP).main:app)" $(if $(HINT),--hint $(HINT)) $(if $(FUNCTION),--function $(FUNCTION)) $(if $(WATCH),--watch) $(if $(CHECK),,|| true)

grade-all: .venv/steps ## grade a class: STEP=step01 SUBMISSIONS=folder (strangers' code: in a container)
	@$(if $(and $(STEP),$(SUBMISSIONS)),,$(error say which step, and which folder: make $@ STEP=step01 SUBMISSIONS=folder))
	@$(PY) -m tests.classroom.grade --step "$(STEP)" --submissions "$(SUBMISSIONS)" $(if $(RESULTS),--results "$(RESULTS)") $(if $(LIMIT),--seconds $(LIMIT))

mistakes: .venv/steps ## prove the bank of mistakes: each turns the tests red that it names
	$(PY) -m pytest -v tests/classroom/test_mistakes.py -k "turns_red$(if $(STEP), and $(STEP))$(if $(MISTAKE), and $(MISTAKE))"

check: .venv/dev ## everything: lint, format, types, every test
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .
	$(PY) -m mypy step01_jwt_login step02_session_middleware step03_combined tests
	$(PY) -m pytest

notebooks: .venv/dev ## open the notebooks in JupyterLab
	$(PY) -m jupyterlab notebooks

screenshots: .venv/dev ## take the pictures of the pages anew (needs Chromium)
	$(PY) -m tests.project.screenshots

bench: .venv/dev ## measure what the steps cost, beside a bare route and common habits (minutes)
	@$(PY) tests/project/bench.py

lock: .venv/dev ## write the requirements files anew, with today's versions
	$(PY) -m uv pip compile pyproject.toml --universal --generate-hashes --upgrade --no-header --output-file requirements.txt
	$(PY) -m uv pip compile pyproject.toml --group dev --universal --generate-hashes --upgrade --no-header --constraint requirements.txt --output-file requirements-dev.txt

.venv/bin/python:
	@$(PYTHON) -c "import sys; sys.exit(sys.version_info < (3, 11))" || { \
	    echo "Python 3.11 or newer is needed, and $(PYTHON) is not. If you have one by another name: make PYTHON=python3.13"; exit 1; }
	@$(PYTHON) -c "import ensurepip, venv" 2>/dev/null || { \
	    echo "Python's venv module is missing. Install it first, on Debian and Ubuntu with: sudo apt install python3-venv"; exit 1; }
	$(PYTHON) -m venv .venv

# The files .venv/steps and .venv/dev say when the requirements were installed last.
.venv/steps: requirements.txt | .venv/bin/python
	$(PY) -m pip install --quiet --disable-pip-version-check --requirement requirements.txt
	@touch $@

.venv/dev: requirements-dev.txt | .venv/bin/python
	$(PY) -m pip install --quiet --disable-pip-version-check --requirement requirements-dev.txt
	@touch $@ .venv/steps
