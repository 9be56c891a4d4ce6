"""Screenshots of the built documentation, taken by headless Chromium without a network.

Usage: python docs/screenshots.py HTML OUTPUT

HTML is the folder that sphinx wrote. OUTPUT receives a picture of each page at each width. Chromium
is found as "chromium" on the PATH.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

CLASS = "skae.VariationalAutoencoder"
PAGES = {
    "start": "index.html",
    "class": f"generated/{CLASS}.html",
    "method": f"generated/{CLASS}.html#{CLASS}.score_samples",
    "gallery": "auto_examples/index.html",
    "example": "auto_examples/plot_sparse.html",
    "comparison": "comparison.html",
    "formulas": "concepts.html",
}
WIDTHS = (1280, 1920)
# The picture of a method is the screen that a link to it shows; others show the whole page.
SCREEN, WHOLE = 1000, 4000


def screenshot(address: str, picture: Path, width: int, height: int) -> None:
    """Open `address` in a window of `width` times `height` pixels and save what it shows."""
    with tempfile.TemporaryDirectory() as profile:
        # Chromium's picture of a page that was scrolled to an anchor is blank, unless in a frame.
        frame = Path(profile) / "frame.html"
        frame.write_text(
            '<body style="margin: 0">'
            f'<iframe src="{address}" style="border: 0; width: 100vw; height: 100vh"></iframe>'
        )
        subprocess.run(
            [
                "chromium",
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--hide-scrollbars",
                f"--user-data-dir={profile}",
                "--host-resolver-rules=MAP * ~NOTFOUND",  # as on a machine without a network
                "--virtual-time-budget=10000",  # formulas are drawn after the page is loaded
                f"--window-size={width},{height}",
                f"--screenshot={picture}",
                frame.as_uri(),
            ],
            check=True,
            capture_output=True,
        )


def main(html: Path, output: Path) -> None:
    """Take every picture."""
    output.mkdir(parents=True, exist_ok=True)
    for name, page in PAGES.items():
        for width in WIDTHS:
            picture = output.resolve() / f"{name}-{width}.png"
            height = SCREEN if "#" in page else WHOLE
            screenshot(f"{html.resolve().as_uri()}/{page}", picture, width, height)


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:]))
