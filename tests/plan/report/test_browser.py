"""Both pages as a browser draws them: wide and on a phone, light and dark."""

import base64
import json
import re
import runpy
import shutil
import subprocess
from html import escape, unescape
from pathlib import Path

import pytest

from rackscale.plan.report import comparison_page, plan_page
from rackscale.plan.report.sweep_page import sweep_page

LIMIT_S = 60.0
HERE = Path(__file__).parent
PICTURES = runpy.run_path(str(HERE.parents[2] / "docs" / "images" / "make_plan_png.py"))
CHROMIUM = next(filter(None, map(shutil.which, ["chromium", "chromium-browser", "google-chrome"])), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the path")
WIDTHS = {"wide": 1280, "phone": 390}
SECTIONS = {
    "plan": ["frontier", "rack", "time-decode", "time-prefill", "memory", "alternatives", "appendix"],
    "comparison": [
        *("waterfall", "curve", "systems", "rack-0", "rack-1", "time-0-mixed", "time-1-decode"),
        *("time-1-prefill", "memory", "appendix"),
    ],
    "sweep": ["curve", "regimes", "rows", "appendix"],
}


@pytest.fixture
def pages(plan, system, comparison, systems, sweep_of_two):
    """HTML by kind."""
    return {
        "plan": plan_page(plan, system),
        "comparison": comparison_page(comparison, systems),
        "sweep": sweep_page(sweep_of_two),
    }


def run(body, script, folder):
    """What a script found in a page, and what the console said."""
    around = folder / "around.html"
    code = (HERE / script).read_text(encoding="utf-8")
    around.write_text(
        f'<!doctype html><meta charset="utf-8">{body}<pre id="result"></pre><script>{code}</script>',
        encoding="utf-8",
    )
    drawn = subprocess.run(
        [
            CHROMIUM,
            *("--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", "--dump-dom"),
            *(f"--user-data-dir={folder / 'profile'}", "--window-size=1300,900", around.as_uri()),
        ],
        capture_output=True,
        check=True,
        timeout=LIMIT_S,
    )
    console = [line for line in drawn.stderr.decode(errors="replace").splitlines() if "CONSOLE" in line]
    found = re.search(r'<pre id="result">(.*?)</pre>', drawn.stdout.decode(), re.DOTALL)
    return json.loads(unescape(found[1])), console


@pytest.mark.parametrize("kind", SECTIONS)
def test_every_section_is_there_at_every_width_in_every_light(kind, pages, tmp_path):
    frames = "".join(
        f'<iframe name="{name}" width="{width}" height="3000" srcdoc="{escape(pages[kind])}"></iframe>'
        for name, width in WIDTHS.items()
    )
    found, console = run(frames, "frames.js", tmp_path)
    assert console == []
    assert found.keys() == WIDTHS.keys()
    for name, frame in found.items():
        for scheme in ("light", "dark"):
            seen = frame[scheme]
            assert list(seen["sections"]) == SECTIONS[kind]
            for section in seen["sections"].values():
                left, _, width, height = section["place"]
                assert section["title"]
                assert section["text"] > 20
                assert left >= 0
                assert left + width <= WIDTHS[name]
                assert height > 100
            assert seen["overflow"] <= 0, "the page scrolls sideways"
            assert seen["faint"] == []
        assert frame["light"]["ground"] > 0.7
        assert frame["dark"]["ground"] < 0.05
        for card in frame["cards"]:
            assert "tokens/s" in card["text"]
            assert card["left"] >= 0
            assert card["right"] <= card["width"]
            assert card["gone"]
            assert card["next"]


def test_no_part_of_a_picture_is_blank(pages, tmp_path):
    taken = {}
    for kind, scheme in {"plan": "LIGHT", "comparison": "DARK"}.items():
        page, picture = tmp_path / f"{kind}.html", tmp_path / f"{kind}.png"
        page.write_text(pages[kind], encoding="utf-8")
        console = PICTURES["photograph"](page, picture, "1280,1600", PICTURES[scheme], CHROMIUM)
        assert console == []
        taken[scheme] = base64.b64encode(picture.read_bytes()).decode()
    images = "".join(f'<img src="data:image/png;base64,{data}">' for data in taken.values())
    found, _ = run(images, "pictures.js", tmp_path)
    assert len(found) == len(taken)
    for scheme, parts in zip(taken, found, strict=True):
        for part in parts:
            assert part["mean"] > 190 if scheme == "LIGHT" else part["mean"] < 70
            assert part["spread"] > 8
            assert part["colours"] > 12
