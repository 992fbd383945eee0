"""Open a page in headless Chromium without a network, and tell what a script saw there."""

import base64
import hashlib
import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=5000", "--window-size=1400,1000",
)  # fmt: skip
WATCH = """
const seen = { problems: [] };
window.alert = (text) => seen.problems.push(`alert ${text}`);
addEventListener("error", (event) => seen.problems.push(`error ${event.message}`), true);
addEventListener("securitypolicyviolation", (event) => seen.problems.push(`blocked ${event.violatedDirective}`), true);
function done() {
  seen.loaded = performance.getEntriesByType("resource").map((entry) => entry.name);
  const result = document.createElement("pre");
  result.id = "seen";
  result.textContent = JSON.stringify(seen);
  document.body.append(result);
}
"""


def binary() -> str | None:
    """The path of a browser; None if none is installed."""
    return next(filter(None, map(shutil.which, NAMES)), None)


needs_browser = pytest.mark.skipif(
    binary() is None, reason=f"needs a browser: none of {', '.join(NAMES)} is installed"
)


def browse(page: str, script: str, folder: Path) -> dict[str, Any]:
    """What a script saw in the page: it fills ``seen`` and calls ``done()`` within seconds.

    ``seen["problems"]`` has errors, alerts and what the page's policy blocked, ``seen["loaded"]`` what
    it loaded. The page is as it is but for the two scripts, which its policy is told to let through.

    Args:
        folder: for the page and the browser's profile.
    """
    hashes = ""
    for source in (WATCH, script):
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        hashes += f" 'sha256-{digest}'"
    page = page.replace("script-src ", f"script-src{hashes} ", 1)
    page = page.replace(
        '<meta name="viewport"', f'<script>{WATCH}</script><meta name="viewport"', 1
    )
    page = page.replace("</body>", f"<script>{script}</script></body>", 1)
    file = folder / "browsed.html"
    file.write_text(page, encoding="utf-8")
    profile = f"--user-data-dir={folder / 'profile'}"
    command = [str(binary()), *FLAGS, profile, "--dump-dom", file.resolve().as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    found = re.search(r'<pre id="seen">(.*?)</pre>', done.stdout, re.S)
    assert found, f"the script did not get to its end: {done.stderr[-2000:]}"
    return json.loads(unescape(found[1]))
