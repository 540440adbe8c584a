"""Draw the figures of the docs that need no training, from what the repository has: `make figures`.

    python benchmarks/figures.py                     # all, into docs/figures
    python benchmarks/figures.py --only arena --out FOLDER

``arena.png`` comes from the scores that the package ships. ``report-desktop.png`` and ``report-phone.png`` are the page
that ``rvpo report`` makes of the run of ``rvpo demo``, in an installed Chromium. The other figures come from trainings of
minutes to hours; the page that shows one names its command.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from rvpo.arena.fields import FIELDS
from rvpo.arena.known import PUBLISHED, Known
from rvpo.arena.table import Scores, interval

FIGURES = Path(__file__).resolve().parents[1] / "docs" / "figures"
SCREENS = {"report-desktop": (1280, 900), "report-phone": (390, 844)}
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
ACCENT, PLAIN = "#b3541e", "#3f5d7d"


def arena(out: Path) -> None:
    """Draw the mean AUC of the lowest channel of each rule, with its interval, a panel per field."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    known = Known.read(PUBLISHED)
    names = [name for name in FIELDS if name in known.runs]
    figure, panels = plt.subplots(1, len(names), figsize=(5.4 * len(names), 5.2), squeeze=False)
    for panel, name in zip(panels[0], names, strict=True):
        runs = known.runs[name]
        methods = list(dict.fromkeys(run.method for run in runs))
        scores = Scores.of(runs, methods, sorted({run.seed for run in runs}))
        means = scores.auc.mean((1, 2))
        order = sorted(range(len(methods)), key=lambda i: means[i])
        for height, i in enumerate(order):
            low, high = interval(scores.auc[i].mean(0))
            colour = ACCENT if methods[i] in ("lift", "gdpo", "rvpo:k=1") else PLAIN
            panel.plot([low, high], [height, height], color=colour, linewidth=2)
            panel.plot(means[i], height, "o", color=colour, markersize=5)
            panel.annotate(
                f"{means[i]:.2f}", (high, height), (5, 0), textcoords="offset points", va="center", fontsize=8
            )
        panel.set_yticks(range(len(order)), [methods[i] for i in order])
        panel.set_xlim(0, 1)
        panel.set_xlabel("AUC of the lowest channel, mean and 95% interval")
        panel.set_title(f"{len(scores.cells)} {name}, {len(scores.seeds)} seeds", loc="left", fontsize=11)
        panel.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(out / "arena.png", dpi=110)
    plt.close(figure)


def report(out: Path) -> None:
    """Take pictures of the page of the sample run, as wide as a desktop's and a phone's.

    Raises:
        SystemExit: no Chromium is installed.
    """
    from playwright.sync_api import sync_playwright

    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        sys.exit(f"no browser is installed; expected one of {', '.join(BROWSERS)}")
    with tempfile.TemporaryDirectory() as folder, sync_playwright() as playwright:
        rvpo = [sys.executable, "-m", "rvpo"]
        subprocess.run([*rvpo, "demo", "--out", "runs/demo"], check=True, cwd=folder, stdout=subprocess.DEVNULL)
        subprocess.run([*rvpo, "report", "runs/demo", "--out", "page.html"], check=True, cwd=folder)
        started = playwright.chromium.launch(executable_path=browser, args=["--headless", "--no-sandbox"])
        # A loaded machine is slow, not wrong: no time limit.
        for name, (width, height) in SCREENS.items():
            page = started.new_page(viewport={"width": width, "height": height}, color_scheme="light")
            page.goto((Path(folder) / "page.html").as_uri(), timeout=0)
            page.wait_for_timeout(3000)
            page.screenshot(path=out / f"{name}.png", timeout=0)
        started.close()


DRAWN: dict[str, Callable[[Path], None]] = {"arena": arena, "report": report}


def main() -> None:
    """Draw the chosen figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=list(DRAWN), help="default: all")
    parser.add_argument("--out", type=Path, default=FIGURES, help="folder of the figures")
    args = parser.parse_args()
    args.out.mkdir(parents=True, exist_ok=True)
    for name in [args.only] if args.only else DRAWN:
        DRAWN[name](args.out)
        print(f"drawn: {name}", flush=True)


if __name__ == "__main__":
    main()
