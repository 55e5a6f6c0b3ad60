"""The screenshots of the chat page, from a running server.

foresay serve nano --layout quadratic --masks 4 &
python docs/make_page.py http://127.0.0.1:8000
"""

import shutil
import sys
from pathlib import Path
from typing import Any

from playwright.sync_api import sync_playwright

SIZE, PHONE = {"width": 900, "height": 640}, {"width": 390, "height": 780}
PRIME = "Write a function to check if a number is prime."
ROBE = "A robe takes 2 bolts of blue fiber and half that much white fiber. How many bolts in total does it take?"


def shoot(browser: Any, url: str, scheme: str, question: str, compare: bool) -> None:
    """Ask, wait for the answer, and keep the picture."""
    page = browser.new_page(viewport=SIZE, color_scheme=scheme)
    page.goto(url)
    page.fill("#prompt", question)
    page.keyboard.press("Enter")
    page.wait_for_selector(".compare:not([disabled])")
    if compare:
        page.click(".compare")
        page.wait_for_selector(".two .figures >> nth=1")
        page.wait_for_selector(".compare:not([disabled])")
        page.wait_for_selector(".outcome")
    page.screenshot(path=Path(__file__).parent / f"page-{scheme}.png")
    page.close()


def shoot_empty(browser: Any, url: str) -> None:
    """The page before anything was asked, on a phone."""
    page = browser.new_page(viewport=PHONE, color_scheme="light")
    page.goto(url)
    page.wait_for_selector("#layout option", state="attached")
    page.screenshot(path=Path(__file__).parent / "page-phone.png")
    page.close()


def main() -> None:
    """Make all three."""
    with sync_playwright() as play:
        browser = play.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        shoot(browser, sys.argv[1], "light", PRIME, compare=False)
        shoot(browser, sys.argv[1], "dark", ROBE, compare=True)
        shoot_empty(browser, sys.argv[1])
        browser.close()


if __name__ == "__main__":
    main()
