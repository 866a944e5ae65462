"""The site builds without a warning, and a browser needs nothing from elsewhere to show it."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]
PACKAGES = ("mkdocs", "material", "mkdocstrings", "latex2mathml")


@pytest.mark.slow
def test_the_site_is_built_whole_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"needs {', '.join(missing)}: the extra `docs`, which make dev installs")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    pages = list(tmp_path.rglob("*.html"))
    assert len(pages) > len(list((ROOT / "docs").glob("*.md")))
    for page in pages:
        html = page.read_text(encoding="utf-8")
        loaded = re.findall(r'<(?:script|img|iframe|source)[^>]*\ssrc="([^"]+)"', html)
        loaded += re.findall(r'<link[^>]*\srel="(?:stylesheet|icon|preconnect|preload)"[^>]*\shref="([^"]+)"', html)
        loaded += re.findall(r'<link[^>]*\shref="([^"]+)"[^>]*\srel="(?:stylesheet|icon|preconnect|preload)"', html)
        assert not [one for one in loaded if "//" in one], page
    method = (tmp_path / "method" / "index.html").read_text(encoding="utf-8")
    assert method.count("<math") > 30
    assert "arithmatex" not in method
    for style in tmp_path.rglob("*.css"):
        assert not re.search(r"url\(['\"]?(?:https?:)?//|@import", style.read_text(encoding="utf-8")), style
    assert not list(tmp_path.rglob("*.py"))
