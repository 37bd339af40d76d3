"""Photograph the newest report for the README: ``make screenshot``. Needs a Chromium on the machine."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
REPORT = ROOT / "reports" / "latest" / "report.html"
TARGET = ROOT / "docs" / "report.png"
BROWSERS = ("chromium", "chromium-browser", "google-chrome")


def main() -> int:
    """Write docs/report.png; 2 if there is no report or no browser."""
    browser = next((path for name in BROWSERS if (path := shutil.which(name))), None)
    if browser is None or not REPORT.exists():
        sys.stderr.write(f"Needed: a report at {REPORT} (make pipeline) and one of {', '.join(BROWSERS)}.\n")
        return 2
    with tempfile.TemporaryDirectory() as profile:
        subprocess.run(
            [
                browser,
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--no-first-run",
                "--hide-scrollbars",
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
                f"--user-data-dir={profile}",
                "--window-size=1200,1500",
                f"--screenshot={TARGET}",
                REPORT.resolve().as_uri(),
            ],
            check=True,
            capture_output=True,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
