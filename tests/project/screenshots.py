"""Take the pictures of the pages that the chapters show: `make screenshots`."""

import io
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page

from tests.project.browser import add, chromium, log_in, press
from tests.project.conftest import ROOT, STEPS, launch_app
from tests.server import stop

WIDTH, HEIGHT = 1200, 860
COLOURS = 48  # enough for text on plain colours, and a third of the bytes


def use(page: Page, step: str) -> None:
    """Bring the page into the state that says most about its step."""
    if step == STEPS[1]:
        press(page, "Count a visit")
        press(page, "Count a visit")
    if step != STEPS[0]:
        add(page, "tea")
    if step != STEPS[1]:
        log_in(page, "alice")
    page.wait_for_load_state("networkidle")
    page.evaluate("document.activeElement.blur(); scrollTo(0, 0)")


def take(browser: Browser, step: str, url: str) -> None:
    """Write page-light.png and page-dark.png into the step's folder."""
    page = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, reduced_motion="reduce", base_url=url)
    page.goto("/")
    use(page, step)
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme="dark" if scheme == "dark" else "light")
        picture = Image.open(io.BytesIO(page.screenshot())).convert("RGB").quantize(COLOURS, dither=Image.Dither.NONE)
        picture.save(ROOT / step / f"page-{scheme}.png", optimize=True)
    page.close()


def main() -> None:
    """Start the steps one after the other, and take two pictures of each."""
    with chromium() as browser:
        for step in STEPS:
            with tempfile.TemporaryDirectory() as folder:
                server = launch_app(f"{step}.main:app", Path(folder))
                try:
                    take(browser, step, server.wait_until_ready().url)
                finally:
                    stop([server])


if __name__ == "__main__":
    main()
