"""Draw plan_report.png and compare_report.png: reports of a plan and a comparison, by the commands below.

python docs/images/make_plan_png.py [FOLDER]; needs chromium and pngquant on the path.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

LIMIT_S = 120.0
DARK = "--blink-settings=preferredColorScheme=0"
LIGHT = "--blink-settings=preferredColorScheme=1"
ASKED = "--model kimi-k2-thinking --isl 8192 --osl 1024 --interactivity 36.3"
PICTURES = {
    "plan_report.png": (f"plan {ASKED} --system gb200-nvl72", "1280,2150", LIGHT),
    "compare_report.png": (f"compare {ASKED} --systems hgx-h200,gb200-nvl72", "1280,1350", DARK),
}


def photograph(page: Path, picture: Path, size: str, scheme: str, browser: str = "chromium") -> list[str]:
    """Let a browser draw a file and take a picture of the upper part. Gives what its console said."""
    with tempfile.TemporaryDirectory() as profile:
        drawn = subprocess.run(  # noqa: S603 (a fixed command)
            [
                browser,
                *("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", scheme),
                *("--enable-logging=stderr", f"--user-data-dir={profile}", f"--window-size={size}"),
                *(f"--screenshot={picture}", page.resolve().as_uri()),
            ],
            check=True,
            capture_output=True,
            timeout=LIMIT_S,
        )
    return [line for line in drawn.stderr.decode(errors="replace").splitlines() if "CONSOLE" in line]


def main(folder: Path) -> None:
    """Both pictures."""
    with tempfile.TemporaryDirectory() as scratch:
        for name, (command, size, scheme) in PICTURES.items():
            page, picture = Path(scratch) / "report.html", folder / name
            _run("rackscale", *command.split(), "--report", page)
            photograph(page, picture, size, scheme)
            _run("pngquant", "--force", "--output", picture, "192", picture)


def _run(*command: str | Path) -> None:
    subprocess.run(command, check=True, stdout=sys.stderr)  # noqa: S603 (commands of this file)


if __name__ == "__main__":
    main(Path(sys.argv[1] if len(sys.argv) > 1 else Path(__file__).parent))
