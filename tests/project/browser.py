"""Chromium, and the steps that it looks at."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page, sync_playwright

from tests.conftest import JWT_KEY, ROOT, SESSION_KEY
from tests.project.conftest import need
from tests.server import Server, launch

STEPS = ("step01_jwt_login", "step02_session_middleware", "step03_combined")
PASSWORDS = {"alice": "wonderland", "bob": "sandcastle"}


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start a Chromium, any that the machine has, and close it in the end."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    program = next(filter(None, map(shutil.which, names)), None) or need("chromium", "chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program)
        yield browser
        browser.close()


def start(step: str, folder: Path, **settings: str) -> Server:
    """Start a step, with keys and a denylist of its own."""
    defaults = {"JWT_SECRET_KEY": JWT_KEY, "SESSION_SECRET_KEY": SESSION_KEY}
    denylist = {"DENYLIST_URL": f"sqlite:///{folder / 'denylist.sqlite3'}"}
    return launch(f"{step}.main:app", ROOT, folder / "server.log", defaults | denylist | settings)


def start_again(server: Server, **settings: str) -> Server:
    """Start a server that was stopped on its old port, with other settings."""
    assert server.process
    process = subprocess.Popen(
        server.process.args,
        cwd=ROOT,
        env=os.environ | settings,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return Server(server.url, process).wait_until_ready()


def log_in(page: Page, username: str, password: str | None = None) -> None:
    """Fill in the form of steps 1 and 3, and press the button."""
    page.get_by_label("Username").fill(username)
    page.get_by_label("Password").fill(password or PASSWORDS[username])
    press(page, "Log in")


def press(page: Page, button: str) -> None:
    """Press the button with this name."""
    page.get_by_role("button", name=button, exact=True).click()
