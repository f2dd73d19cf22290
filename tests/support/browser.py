"""Chromium with an empty profile, driven by Selenium."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager

from selenium.webdriver import Chrome
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.support.ui import WebDriverWait

CHROMIUM = shutil.which("chromium")
CHROMEDRIVER = shutil.which("chromedriver")


@contextmanager
def browser(width: int, height: int) -> Iterator[Chrome]:
    """Run headless Chromium until the block ends."""
    options = Options()
    options.binary_location = CHROMIUM or ""
    for option in ("headless=new", "no-sandbox", "disable-dev-shm-usage"):
        options.add_argument(f"--{option}")
    options.add_argument(f"--window-size={width},{height}")
    driver = Chrome(options=options, service=Service(CHROMEDRIVER))
    try:
        yield driver
    finally:
        driver.quit()


def wait_for(driver: Chrome, *texts: str) -> None:
    """Wait until the page shows all of the texts."""
    WebDriverWait(driver, 240).until(
        lambda _: all(text in driver.find_element("tag name", "body").text for text in texts)
    )
