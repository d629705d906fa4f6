"""Chromium, and what a person does with its mouse and keyboard."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, Page, expect, sync_playwright

from tests.project.conftest import need

PASSWORDS = {"alice": "wonderland", "bob": "sandcastle"}
NAMES = {"alice": "Alice Liddell", "bob": "Bob Stone"}


@contextmanager
def chromium() -> Iterator[Browser]:
    """Start a Chromium, any that the machine has, and close it in the end."""
    names = ("chromium", "chromium-browser", "google-chrome", "chrome")
    program = next(filter(None, map(shutil.which, names)), None) or need("chromium", "chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program)
        yield browser
        browser.close()


def press(page: Page, button: str) -> None:
    """Press the button with this name."""
    page.get_by_role("button", name=button, exact=True).click()


def add(page: Page, item: str) -> None:
    """Press Add beside one item of the menu, and wait until it is in the cart."""
    press(page, f"Add {item}")
    expect(page.locator("#cart li", has_text=item)).to_be_visible()


def fill_in_login(page: Page, username: str, password: str | None = None) -> None:
    """Fill in the form of steps 1 and 3, and press the button."""
    page.get_by_label("Username").fill(username)
    page.get_by_label("Password").fill(password or PASSWORDS[username])
    press(page, "Log in")


def log_in(page: Page, username: str) -> None:
    """Log in, and wait until the page says so."""
    fill_in_login(page, username)
    expect(page.get_by_text(f"Logged in: {NAMES[username]}")).to_be_visible()
