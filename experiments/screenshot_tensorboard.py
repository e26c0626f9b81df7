"""Photograph a run's TensorBoard in a headless browser: one picture of each page a person would open.

    pip install playwright; sudo apt-get install chromium
    python experiments/screenshot_tensorboard.py --logdir runs/quickstart --output DIR

Starts a TensorBoard of its own and stops it again. `DIR/overview.png` is the README's picture, made from a
quickstart run.
"""

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.error import URLError
from urllib.parse import quote
from urllib.request import urlopen

import click
from PIL import Image
from playwright.sync_api import Page, sync_playwright

SHOWN = "labels/(churn|cosine|mutual)|retrieval/(by_round|drone->satellite(/R@1)?$)"
# Lines as SVG: without a graphics card the default way draws none.
PAGES = {
    "overview": f"?forceSVG=true&smoothing=0&tagFilter={quote(SHOWN)}#timeseries",
    "images": "#images",
    "text": "#text",
    "projector": "#projector",
}
START_LIMIT_S, DRAW_S = 120, 8


@contextmanager
def tensorboard(logdir: str) -> Iterator[str]:
    """A TensorBoard on the loopback address; yields its URL."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "tensorboard.main", "--host=127.0.0.1", f"--port={port}"]
    process = subprocess.Popen([*command, "--logdir", logdir], stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        limit = time.monotonic() + START_LIMIT_S
        while not answers(f"{url}/data/runs"):
            if process.poll() is not None or time.monotonic() > limit:
                raise SystemExit(f"TensorBoard did not start within {START_LIMIT_S} s on {logdir}")
            time.sleep(0.5)
        yield url
    finally:
        process.terminate()
        process.wait()


def answers(url: str) -> bool:
    """Whether a page can be had."""
    try:
        with urlopen(url, timeout=5) as page:
            return bool(page.read() != b"[]")
    except (URLError, OSError):
        return False


def photograph(page: Page, url: str, path: Path) -> None:
    """Open a page, let it draw, and write what a person sees."""
    page.goto(url, wait_until="domcontentloaded")
    page.wait_for_timeout(DRAW_S * 1000)
    if (outliers := page.get_by_text("Ignore outliers in chart scaling")).count():
        outliers.click()  # by default it cuts the first and the last of a few rounds off
    if (close := page.get_by_role("button", name="Close side pane")).count():
        close.click()
        page.wait_for_timeout(1000)
    page.screenshot(path=path)
    with Image.open(path) as picture:
        picture.quantize(256).save(path, optimize=True)  # a third of the bytes
    click.echo(path)


@click.command()
@click.option("--logdir", required=True, help="Folder of a run, or of several.")
@click.option("--output", type=click.Path(path_type=Path), required=True)
@click.option("--browser", default=shutil.which("chromium") or "chromium", show_default=True)
@click.option("--height", default=1040, show_default=True, help="px")
def main(logdir: str, output: Path, browser: str, height: int) -> None:
    """Write a picture of each of TensorBoard's pages."""
    output.mkdir(parents=True, exist_ok=True)
    with tensorboard(logdir) as url, sync_playwright() as driver:
        # The projector draws with WebGL, here without a graphics card.
        arguments = ["--no-sandbox", "--use-gl=angle", "--use-angle=swiftshader"]
        chromium = driver.chromium.launch(executable_path=browser, args=arguments)
        page = chromium.new_page(viewport={"width": 1500, "height": height})
        for name, address in PAGES.items():
            photograph(page, f"{url}/{address}", output / f"{name}.png")
        chromium.close()


if __name__ == "__main__":
    main()
