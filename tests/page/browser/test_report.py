"""The report page in a real browser: quiet, usable by keyboard, and never fooled by what a log says."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict
from itertools import pairwise
from typing import Any

import pytest
import torch
from opened_page import Opened
from report_data import FIGURE_1, HOSTILE, RARE, comparison, hostile, report, run

import rvpo
from rvpo.logs.guess import Guess

Open = Callable[..., Opened]
METHODS = ("grpo", "gdpo", "rvpo", "rvpo_explicit", "hard_min", "tchebycheff", "smooth_tchebycheff")

VARIANTS: dict[str, Callable[[], dict[str, Any]]] = {
    "whole": report,
    "hostile": hostile,
    "one channel, one step": lambda: report(
        runs=[run(channels=1, points=1, samples=0) | {"replay": None}], comparison=None, presets=[]
    ),
    "many channels": lambda: report(runs=[run(channels=200, points=50, samples=3)], comparison=None),
    "nothing": lambda: {"schema": "rvpo.report/1", "runs": []},
    "empty parts": lambda: report(
        runs=[{"name": "r", "path": "", "diagnosis": None, "replay": {"own": None, "rules": []}, "samples": None}],
        comparison={"baseline": "a", "groups": {"a": {"runs": [], "curves": {}}}, "table": None, "notes": None},
        presets=None,
    ),
    "nothing is known": lambda: report(runs=[nothing_known()], comparison=None),
}


def nothing_known() -> dict[str, Any]:
    """A run all of whose numbers are null."""

    def emptied(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: entry if key in ("steps", "schema") else emptied(entry) for key, entry in value.items()}
        if isinstance(value, list):
            return [emptied(entry) for entry in value]
        return value if isinstance(value, str) else None

    return emptied(run(points=5))


# ---- quiet, and as wide as the screen ----


QUICK = ("whole", "hostile")
"""Variants that every run opens at both widths; the others open on a telephone, and by night also on a wide screen."""


@pytest.mark.parametrize(
    ("variant", "width"),
    [
        *((variant, 390) for variant in VARIANTS),
        *(pytest.param(v, 1280, marks=[] if v in QUICK else pytest.mark.slow) for v in VARIANTS),
    ],
)
def test_it_opens_without_a_word_a_request_or_a_sideways_scroll(open_report: Open, variant: str, width: int):
    opened = open_report(VARIANTS[variant](), width=width)
    opened.js("document.querySelectorAll('details').forEach(details => { details.open = true; })")
    opened.page.emulate_media(color_scheme="dark")
    opened.settle()
    assert opened.said == []
    assert [url for url in opened.asked if not url.startswith("file:")] == []
    assert len(opened.asked) == 1
    assert opened.js("document.documentElement.scrollWidth") == width
    assert opened.js("document.querySelectorAll('h1').length") == 1


def test_the_policy_stops_scripts_handlers_and_requests_that_are_not_its_own(open_report: Open):
    opened = open_report(report())
    stopped: dict[str, str | None] = {}
    opened.page.on("requestfailed", lambda request: stopped.update({request.url: request.failure}))
    refused = opened.js(
        """async () => {
          const refused = [];
          document.addEventListener("securitypolicyviolation", event => refused.push(event.effectiveDirective));
          const script = document.createElement("script");
          script.textContent = "window.intruded = true";
          document.body.append(script);
          const image = document.createElement("img");
          image.setAttribute("onerror", "window.intruded = true");
          image.src = "https://example.org/x.png";
          document.body.append(image);
          await fetch("https://example.org/").catch(() => null);
          await new Promise(resolve => setTimeout(resolve, 200));
          return [refused, window.intruded === true];
        }"""
    )
    assert refused[1] is False
    assert {"script-src-elem", "script-src-attr", "img-src", "connect-src"} <= set(refused[0])
    assert set(stopped) == set(opened.asked[1:])
    assert set(stopped.values()) <= {"csp"}


def test_hostile_texts_are_shown_as_texts(open_report: Open):
    opened = open_report(hostile())
    opened.js("document.querySelectorAll('details').forEach(details => { details.open = true; })")
    opened.settle()
    assert opened.js("document.querySelectorAll('img, iframe, a:not([href^=\"#\"]), body b').length") == 0
    # The drawings have an <a> for each entry of theirs; none may lead anywhere.
    assert opened.js("[...document.querySelectorAll('svg a')].every(a => !a.getAttribute('xlink:href'))")
    assert opened.js("document.querySelectorAll('svg a[href]').length") == 0
    for selector in (
        "h1",
        "#facts",
        "#guesses",
        "#remedies",
        "#run-sentence",
        "#replay-conclusion",
        "#diagnosis-table",
        "#curves-channels",
        "#comparison-table",
        "#replay-table",
    ):
        assert HOSTILE in opened.text(selector), selector
    assert opened.text("#sample-completion-text") == f"{HOSTILE}<!-- <script>"
    assert HOSTILE in opened.text("#sample td.why >> nth=0")
    assert "<b>bold</b>" in opened.text("#influence-plot")  # plotly's labels
    assert "constructor" in opened.text("#diagnosis-table")
    assert "__proto__" in opened.text("#diagnosis-table")
    assert opened.said == []


# ---- what it says ----


def test_the_overview_says_who_is_neglected(open_report: Open):
    opened = open_report(report(runs=[run()]))
    assert opened.text("#sentence").startswith("2 of 6 channels are neglected: format, safety.")
    tiles = opened.text("#tiles")
    assert "300" in tiles
    assert "19,200" in tiles
    assert "in 2,400 groups" in tiles
    assert "−0.09" in tiles


@pytest.mark.parametrize(
    ("verdicts", "sentence"),
    [
        (["healthy"], "The only channel is not neglected."),
        (["neglected"], "1 of 1 channel is neglected: correctness."),
        (["neglected", "healthy"], "1 of 2 channels is neglected: correctness."),
        (["dead", "healthy", "dead"], "None of 3 channels is neglected. 2 are dead: format, correctness."),
        (["neglected"] * 6, "6 of 6 channels are neglected: format, safety, brevity and 3 more."),
    ],
)
def test_the_sentence_in_other_cases(open_report: Open, verdicts: list[str], sentence: str):
    told = run(channels=len(verdicts))
    for channel, verdict in zip(told["diagnosis"]["channels"], verdicts, strict=True):
        channel["verdict"] = verdict
    assert open_report(report(runs=[told], comparison=None)).text("#sentence") == sentence


def test_the_summary_of_a_run_is_the_one_that_came_with_it_and_guesses_stand_below(open_report: Open):
    told = run() | {"summary": "Of guesses: format may be neglected."}
    guess = Guess("weights are those of the total", "the logs have none", "--weights")
    told["diagnosis"]["guesses"] = [asdict(guess), "of older data"]
    told["diagnosis"]["notes"] = ["those of grpo are assumed (--method)", "groups are blocks of 8"]
    opened = open_report(report(runs=[told]))
    assert opened.text("#sentence").startswith("Of guesses: format may be neglected. 1 is noisy")
    assert opened.text("#guesses").split("\n")[1:] == [str(guess), "of older data"]
    assert opened.text("#notes").split("\n") == told["diagnosis"]["notes"]
    told["diagnosis"]["guesses"] = []
    opened = open_report(report(runs=[told]))
    assert opened.text("#guesses").split("\n")[1:] == ["those of grpo are assumed (--method)"]
    assert opened.text("#notes") == "groups are blocks of 8"


def test_the_first_screen_says_why_and_what_to_type(open_report: Open):
    opened = open_report(report(runs=[run()]), height=844, width=390)
    cards = opened.page.locator("#remedies article")
    assert cards.locator("h3 .name").all_inner_texts() == ["format", "safety"]
    line = cards.first.locator("pre").first
    box = line.bounding_box()
    assert box
    assert box["y"] + box["height"] < 844
    opened.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    button = cards.first.get_by_role("button", name="Copy for format: TRL script")
    button.focus()
    opened.page.keyboard.press("Enter")
    opened.until(lambda: opened.text("#remedies-status") == "Copied")
    assert opened.js("navigator.clipboard.readText()") == line.inner_text()


def test_a_verdict_leads_to_its_samples(open_report: Open):
    opened = open_report(report(runs=[run()]))
    opened.page.locator("#remedies").get_by_role("button", name="3 samples where it is lowest").click()  # of safety
    assert opened.text("#samples-position") == "1 of 3"
    assert "lowest in safety" in opened.text("#sample h3")
    assert opened.js("document.activeElement.id") == "samples-channel"


def test_of_several_runs_the_headline_speaks_of_all_and_the_first_with_a_remedy_is_shown(open_report: Open):
    quiet = run("quiet") | {"cards": []}
    opened = open_report(report(runs=[quiet, run("loud")], headline="format is neglected in 1 of 2 runs."))
    assert opened.text("#sentence") == "format is neglected in 1 of 2 runs."
    assert opened.text("#run-sentence").startswith("Run 2 of 2, loud: 2 of 6 channels are neglected")
    assert opened.page.locator("#remedies article").count() == 2
    opened.page.locator("#run").select_option("0")
    assert opened.page.locator("#remedies article").count() == 0


def test_no_tile_is_empty(open_report: Open):
    opened = open_report(report(runs=[run(points=3)], comparison=None, presets=[]))
    for width in (320, 390, 700, 1000, 1280):
        opened.page.set_viewport_size({"width": width, "height": 900})
        boxes = [tile.bounding_box() for tile in opened.page.locator("#tiles div").all()]
        outer = opened.page.locator("#tiles").bounding_box()
        assert outer
        rows = {box["y"] for box in boxes if box}
        for y in rows:  # each row is filled to its end
            right = max(box["x"] + box["width"] for box in boxes if box and box["y"] == y)
            assert right > outer["x"] + outer["width"] - 3, width


def names_in_order(opened: Opened) -> list[str]:
    return opened.page.locator("#diagnosis-table .name").all_inner_texts()


def test_channels_stand_by_severity_and_headings_sort_by_keyboard(open_report: Open):
    opened = open_report(report())
    assert names_in_order(opened) == ["format", "safety", "tone", "brevity", "helpfulness", "correctness"]
    for direction, expected in [("ascending", "format"), ("descending", "correctness")]:
        opened.page.locator("#sort-correlation").focus()
        opened.page.keyboard.press("Enter")
        heading = opened.page.locator("#diagnosis-table th", has=opened.page.locator("#sort-correlation"))
        assert heading.get_attribute("aria-sort") == direction
        assert names_in_order(opened)[0] == expected
        assert opened.js("document.activeElement.id") == "sort-correlation"


def test_a_value_that_is_not_known_sorts_last_in_both_directions(open_report: Open):
    told = run()
    told["diagnosis"]["channels"][0]["mean"]["value"] = None  # correctness
    opened = open_report(report(runs=[told]))
    for _ in range(2):
        opened.page.locator("#sort-mean").click()
        assert names_in_order(opened)[-1] == "correctness"


def test_many_channels_are_shown_on_demand(open_report: Open):
    opened = open_report(report(runs=[run(channels=60, points=3)], comparison=None))
    assert len(names_in_order(opened)) == 24
    opened.page.get_by_role("button", name="Show all 60 channels").click()
    assert len(names_in_order(opened)) == 60


def test_another_run_is_chosen_in_the_header_and_in_the_table(open_report: Open):
    opened = open_report(report())
    opened.page.locator("#run").select_option("1")
    assert "advantages: rvpo (k = 1)" in opened.text("#facts")
    opened.page.locator("#runs-table").get_by_role("button", name="tools-gdpo").click()
    assert "advantages: gdpo" in opened.text("#facts")
    assert opened.page.locator("#run").input_value() == "0"


def drawn(opened: Opened, plot: str = "curves-plot") -> list[str]:
    return opened.js(
        "id => document.getElementById(id).data.filter(trace => trace.name).map(trace => trace.name)", plot
    )


def test_curves_follow_quantity_and_channels(open_report: Open):
    data = report()
    opened = open_report(data)
    curves = data["runs"][0]["diagnosis"]["curves"]
    assert drawn(opened) == ["tone", "brevity", "helpfulness", "correctness", "safety", "format"]  # the last in front
    opened.page.locator("#curves-metric-correlation").check()
    smooth = opened.js("document.getElementById('curves-plot').data.at(-1).y")
    assert smooth[10] == pytest.approx(sum(curves["correlation"]["format"][7:14]) / 7)
    opened.page.locator("#curves-smooth").uncheck()
    assert opened.js("document.getElementById('curves-plot').data.at(-1).y") == curves["correlation"]["format"]
    chip = opened.page.get_by_role("button", name="safety", exact=True)
    chip.focus()
    opened.page.keyboard.press("Space")
    assert chip.get_attribute("aria-pressed") == "false"
    assert drawn(opened) == ["tone", "brevity", "helpfulness", "correctness", "format"]
    assert opened.js("document.activeElement.textContent") == "safety"
    opened.page.get_by_role("button", name="None", exact=True).click()
    assert drawn(opened) == []


def test_every_plot_has_a_sentence_and_a_table_of_its_numbers(open_report: Open):
    data = report()
    opened = open_report(data)
    for plot, table, column in [
        ("curves-plot", "curves-data", "format"),
        ("comparison-plot", "comparison-data", "Mean"),
        ("influence-plot", "influence-data", "format"),
        ("correlation-plot", "correlation-data", "format"),
    ]:
        plotted = opened.page.locator(f"#{plot}")
        assert plotted.get_attribute("role") == "img"
        assert len(plotted.get_attribute("aria-label") or "") > 60
        opened.page.locator(f"#{table} summary").focus()
        opened.page.keyboard.press("Enter")
        assert column in opened.text(f"#{table} thead")
    last = data["runs"][0]["diagnosis"]["curves"]["mean"]["format"][-1]
    assert f"{last:.3f}" in opened.text("#curves-data tbody tr:last-child")


def test_methods_are_compared_by_channel(open_report: Open):
    opened = open_report(report())
    opened.page.locator("#comparison-channel").select_option("safety")
    mean = comparison()["groups"]["lift"]["curves"]["safety"]["mean"]
    assert drawn(opened, "comparison-plot") == ["gdpo", "rvpo", "lift"]
    assert opened.js("document.getElementById('comparison-plot').data.at(-1).y") == mean
    assert "gdpo 5 runs, the baseline" in opened.text("#comparison-key")
    assert "cannot tell" in opened.text("#comparison-table")


def test_who_decides_is_told_of_the_advantage_that_was_used(open_report: Open):
    data = report(runs=[run()])
    opened = open_report(data)
    rows = data["runs"][0]["diagnosis"]["influence"]
    assert opened.js("document.getElementById('influence-plot').data[0].z[0]") == rows["say"]["format"]
    assert "format is lowest" in opened.text("#influence-lead")
    opened.page.locator("#influence-metric-pull").check()
    assert opened.js("document.getElementById('influence-plot').data[0].z[0]") == rows["pull"]["format"]
    assert opened.text("#replay-conclusion").startswith("Under lift, format")


def test_replay_shows_what_each_channel_gets(open_report: Open):
    opened = open_report(report())
    row = opened.page.locator("#replay-channels tbody tr", has_text="format")
    assert row.locator("td").nth(1).inner_text() == "−0.09"  # under GDPO
    opened.page.locator("#replay-metric-responsibility").check()
    assert float(row.locator("td").nth(1).inner_text()) == pytest.approx(1 / 6, abs=0.005)


def test_samples_are_paged_and_filtered_by_keyboard(open_report: Open):
    opened = open_report(report())
    page = opened.page
    assert opened.text("#samples-position") == "1 of 12"
    page.locator("#samples-next").focus()
    page.keyboard.press("Enter")
    assert opened.text("#samples-position") == "2 of 12"
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert "on day 4 " in opened.text("#sample-prompt-text")
    page.keyboard.press("End")
    page.keyboard.press("Enter")  # there is no next one
    assert opened.text("#samples-position") == "12 of 12"
    page.locator("#samples-channel").select_option("=safety")
    assert opened.text("#samples-position") == "1 of 3"
    assert "lowest in safety" in opened.text("#sample h3")
    assert "safety" in opened.text("#sample tbody tr:first-child")  # lowest z first


# ---- the explorer ----


def alone(**changes: Any) -> dict[str, Any]:
    """A report of the explorer only, which opens sooner."""
    return report(runs=[], comparison=None) | changes


def shown(opened: Opened, method: str) -> tuple[list[float], list[str]]:
    cells = opened.page.locator(f"#card-{method} data")
    return [float(value) for value in cells.evaluate_all("all => all.map(one => one.value)")], cells.all_inner_texts()


def expected(rewards: list[list[float | None]], method: str, **options: Any) -> list[float]:
    group = torch.tensor([[math.nan if x is None else x for x in row] for row in rewards], dtype=torch.float64)
    out = rvpo.advantages(group, num_generations=len(rewards), method=method, state={}, **options)
    return out.advantages.tolist()


def agrees(opened: Opened, rewards: list[list[float | None]], k: float = 1.0, ranges: Any = None, **own: Any) -> None:
    """Compare all the numbers of the page, in full and as printed."""
    options = {"rvpo": {"k": k}, "rvpo_explicit": {"beta": k / 2}} | own
    for method in METHODS:
        wanted = expected(rewards, method, ranges=ranges, **options.get(method, {}))
        values, printed = shown(opened, method)
        assert values == pytest.approx(wanted, abs=1e-9), (method, k)
        read = [float(text.replace("−", "-")) for text in printed]
        assert read == pytest.approx(wanted, abs=0.005 + 1e-9)


def test_k_is_moved_by_keyboard(open_report: Open):
    opened = open_report(alone())
    group = FIGURE_1["rewards"]
    agrees(opened, group, 1.0)
    slider = opened.page.locator("#k")
    slider.focus()
    for key, k in [("Home", 0.0), ("ArrowRight", 0.05), ("ArrowRight", 0.1), ("End", 5.0), ("ArrowLeft", 4.95)]:
        opened.page.keyboard.press(key)
        assert float(slider.input_value()) == pytest.approx(k)
        assert float(opened.page.locator("#k-number").input_value()) == pytest.approx(k)
        agrees(opened, group, k)


def test_k_is_dragged_from_0_to_5(open_report: Open):
    opened = open_report(alone())
    slider = opened.page.locator("#k")
    slider.scroll_into_view_if_needed()
    box = slider.bounding_box()
    assert box
    middle, seen = box["y"] + box["height"] / 2, []
    opened.page.mouse.move(box["x"] + 2, middle)
    opened.page.mouse.down()
    for step in range(6):
        opened.page.mouse.move(box["x"] + 2 + (box["width"] - 4) * step / 5, middle)
        k = float(slider.input_value())
        agrees(opened, FIGURE_1["rewards"], k)
        seen.append(k)
    opened.page.mouse.up()
    assert (seen[0], seen[-1]) == (0.0, 5.0)
    assert seen == sorted(set(seen))


def test_k_is_set_by_script(open_report: Open):
    opened = open_report(alone())
    for k in (0.0, 0.35, 2.0, 5.0):
        opened.page.locator("#k").evaluate(
            "(slider, k) => { slider.value = k; slider.dispatchEvent(new Event('input', { bubbles: true })); }", k
        )
        agrees(opened, FIGURE_1["rewards"], k)


def test_k_beyond_the_slider_is_typed(open_report: Open):
    opened = open_report(alone())
    opened.page.locator("#k-number").fill("250")
    agrees(opened, FIGURE_1["rewards"], 250.0)
    assert opened.page.locator("#k").input_value() == "5"
    opened.page.locator("#k-number").fill("-1")
    assert opened.page.locator("#k-number").get_attribute("aria-invalid") == "true"
    agrees(opened, FIGURE_1["rewards"], 250.0)


def test_bars_point_where_the_numbers_do(open_report: Open):
    opened = open_report(alone())
    opened.page.emulate_media(reduced_motion="reduce")
    for k in ("0", "5"):
        opened.page.locator("#k-number").fill(k)
        places = opened.js(
            """() => [...document.querySelectorAll('#card-rvpo .bar')].map(bar => {
              const outer = bar.getBoundingClientRect(), inner = bar.firstElementChild.getBoundingClientRect();
              const zero = outer.left + outer.width / 2;
              return [(inner.right - zero) / (outer.width / 2), (inner.left - zero) / (outer.width / 2)];
            })"""
        )
        largest = 3 / math.sqrt(4)  # of four whitened numbers
        for (right, left), value in zip(places, shown(opened, "rvpo")[0], strict=True):
            assert right == pytest.approx(max(value, 0) / largest, abs=0.01)
            assert left == pytest.approx(min(value, 0) / largest, abs=0.01)


def test_a_matrix_is_edited_by_keyboard(open_report: Open):
    opened = open_report(alone())
    page = opened.page
    group = [list(row) for row in FIGURE_1["rewards"]]
    page.locator("#cell-0-2").focus()
    page.keyboard.type("0.9")  # what was there is selected
    group[0][2] = 0.9
    agrees(opened, group)
    page.keyboard.press("ArrowDown")
    assert opened.js("document.activeElement.id") == "cell-1-2"
    page.keyboard.press("Enter")
    assert opened.js("document.activeElement.id") == "cell-2-2"
    page.keyboard.press("Delete")
    group[2][2] = None
    agrees(opened, group)
    assert "missing" in opened.text("#decides tbody tr:nth-child(3)")

    page.locator("#add-row").press("Enter")
    assert opened.js("document.activeElement.id") == "cell-4-0"
    for value in ("0.25", "1", "0,5"):
        page.keyboard.type(value)
        page.keyboard.press("Tab")
    group.append([0.25, 1.0, 0.5])
    agrees(opened, group)

    page.locator("#add-column").press("Enter")
    page.keyboard.type("brief")
    assert opened.js("document.activeElement.value") == "brief"
    group = [[*row, None] for row in group]
    agrees(opened, group)
    for g, value in enumerate((1, 0, 0, 1)):
        page.locator(f"#cell-{g}-3").fill(str(value))
        group[g][3] = float(value)
    agrees(opened, group)

    page.locator("#remove-column-0").press("Enter")
    page.locator("#remove-row-1").press("Enter")
    agrees(opened, [row[1:] for i, row in enumerate(group) if i != 1])
    assert "brief" in opened.text("#decides thead")
    page.locator("#reset").click()
    agrees(opened, FIGURE_1["rewards"])


def test_what_is_no_number_is_said_and_counts_as_missing(open_report: Open):
    opened = open_report(alone())
    opened.page.locator("#cell-0-0").fill("much")
    assert opened.page.locator("#cell-0-0").get_attribute("aria-invalid") == "true"
    assert "“much” is not a number" in opened.text("#matrix-status")
    group = [list(row) for row in FIGURE_1["rewards"]]
    group[0][0] = None
    agrees(opened, group)


def test_a_block_is_pasted(open_report: Open):
    opened = open_report(alone())
    opened.page.locator("#cell-1-0").evaluate(
        """cell => {
          const clipboard = new DataTransfer();
          clipboard.setData("text", "1\\t2\\t3\\t4\\n0\\t\\t0.5\\t1\\n.5\\t1\\t1\\t0\\n1\\t1\\t1\\t1\\n");
          cell.dispatchEvent(new ClipboardEvent("paste", { clipboardData: clipboard, cancelable: true }));
        }"""
    )
    group = [[1, 1, 0, None], [1, 2, 3, 4], [0, None, 0.5, 1], [0.5, 1, 1, 0], [1, 1, 1, 1]]
    agrees(opened, group, ranges=[(0.0, 1.0)] * 4)
    assert "are outside of their range" in opened.text("#matrix-status")


def test_rules_have_their_own_options(open_report: Open):
    opened = open_report(alone())
    opened.page.locator("#preset").select_option(label=RARE["name"])
    page, group = opened.page, RARE["rewards"]
    for method, name, value in [
        ("rvpo_explicit", "beta", 1.75),
        ("tchebycheff", "rho", 0.6),
        ("smooth_tchebycheff", "mu", 0.02),
    ]:
        page.locator(f"#option-{method}-{name}").fill(str(value))
    page.locator("#range-1-1").fill("2")
    own = {
        "rvpo_explicit": {"beta": 1.75},
        "tchebycheff": {"rho": 0.6},
        "smooth_tchebycheff": {"mu": 0.02},
    }
    ranges = [(0.0, 1.0), (0.0, 2.0), (0.0, 1.0), (0.0, 1.0)]
    agrees(opened, group, ranges=ranges, **own)
    page.locator("#option-smooth_tchebycheff-mu").fill("0")  # not allowed: the last one stays
    assert page.locator("#option-smooth_tchebycheff-mu").get_attribute("aria-invalid") == "true"
    page.locator("#option-rvpo_explicit-beta").fill("")  # follows k again
    agrees(opened, group, ranges=ranges, **(own | {"rvpo_explicit": {"beta": 0.5}}))


def test_the_chosen_rule_tells_who_decides(open_report: Open):
    opened = open_report(alone())
    group = torch.tensor(FIGURE_1["rewards"], dtype=torch.float64)
    assert opened.text("#decides-h") == "Which channels decide under RVPO"
    assert "the sign changes for completion 1." in opened.text("#decides-lead")
    opened.page.locator("#rule-rvpo").focus()
    for key, method, title in [
        ("ArrowRight", "rvpo_explicit", "RVPO-explicit"),
        ("ArrowRight", "hard_min", "Hard minimum"),
    ]:
        opened.page.keyboard.press(key)
        assert opened.text("#decides-h") == f"Which channels decide under {title}"
        wanted = rvpo.advantages(group, num_generations=4, method=method, state={}).responsibilities
        found = opened.page.locator("#decides data").evaluate_all("all => all.map(one => Number(one.value))")
        assert found == pytest.approx(wanted.flatten().tolist(), abs=1e-9)


def test_the_examples_are_those_of_the_data(open_report: Open):
    opened = open_report(alone(presets=[RARE]))
    assert opened.page.locator("#preset option").all_inner_texts() == [RARE["name"], "Your own"]
    agrees(opened, RARE["rewards"])
    assert opened.text("#preset-note") == RARE["note"]


def test_rules_in_the_page_agree_with_rvpo(open_report: Open):
    import rule_cases

    cases = rule_cases.cases(400)
    opened = open_report(alone())
    assert rule_cases.differing(cases, opened.js(rule_cases.IN_JAVASCRIPT, cases)) == []


# ---- for everybody ----

CONTROLS = """() => {
  const all = document.querySelectorAll("a[href], button, input, select, summary, [tabindex='0']");
  const radios = new Set();
  return [...all].filter(one => {
    if (!one.checkVisibility() || one.disabled) return false;
    if (one.type !== "radio") return true;
    if (!one.checked) return false;  // of a group, the chosen one has the focus; arrows reach the others
    return true;
  }).map(one => (one.dataset.tour = String(window.tourCount = (window.tourCount || 0) + 1)));
}"""
FOCUSED = """() => {
  const one = document.activeElement;
  const ringed = one.type === "radio" && one.closest(".segmented") ? one.nextElementSibling : one;
  const look = getComputedStyle(ringed), box = ringed.getBoundingClientRect();
  return {
    tour: one.dataset.tour || null, what: one.id || one.outerHTML.slice(0, 80),
    ring: look.outlineStyle !== "none" && parseFloat(look.outlineWidth) >= 2,
    seen: box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth,
  };
}"""


@pytest.mark.parametrize("width", [1280, 390])
def test_a_keyboard_reaches_every_control_and_shows_where_it_is(open_report: Open, width: int):
    opened = open_report(report(), width=width)
    wanted = set(opened.js(CONTROLS))
    assert len(wanted) > 60
    reached = set()
    for _ in range(len(wanted) + 5):
        opened.page.keyboard.press("Tab")
        focused = opened.js(FOCUSED)
        if focused["tour"] is None or focused["tour"] in reached:
            break
        assert focused["ring"], focused
        assert focused["seen"], focused
        reached.add(focused["tour"])
    assert wanted - reached == set()


COVERED = """() => {
  const one = document.activeElement, box = one.getBoundingClientRect();
  const over = [...document.querySelectorAll(".top, .slider")].some(bar => {
    const own = bar.getBoundingClientRect();
    const sticks = !bar.contains(one) && getComputedStyle(bar).position === "sticky";
    return sticks && own.top <= box.top && own.bottom >= box.bottom;
  });
  return over ? one.id || one.outerHTML.slice(0, 60) : null;
}"""


@pytest.mark.parametrize("width", [1280, 390])
def test_what_has_the_focus_is_not_covered(open_report: Open, width: int):
    """By the header or the slider, which stay in view."""
    opened = open_report(report(), width=width)
    opened.page.locator("#samples-next").focus()
    for _ in range(70):
        opened.page.keyboard.press("Shift+Tab")
        covered = opened.js(COVERED)
        assert covered is None


def test_every_field_has_a_name_and_headings_go_down_one_at_a_time(open_report: Open):
    opened = open_report(report())
    nameless = """() => [...document.querySelectorAll("input, select, button")].filter(one => one.checkVisibility())
      .filter(one => !one.labels?.length && !one.getAttribute("aria-label") && !one.textContent.trim())
      .map(one => one.id)"""
    assert opened.js(nameless) == []
    levels = opened.js(
        "[...document.querySelectorAll('h1,h2,h3,h4')].filter(h => h.checkVisibility()).map(h => Number(h.tagName[1]))"
    )
    assert levels[0] == 1
    assert all(after - before <= 1 for before, after in pairwise(levels))
    assert opened.js(
        "[...document.querySelectorAll('table')].every(table => table.caption && table.tHead.querySelector('th'))"
    )
    assert opened.js("[...document.querySelectorAll('.badge')].every(badge => /[a-z]{4}/.test(badge.textContent))")


# Of each text the contrast with what lies behind it, as WCAG 2 counts it; shades are mixed over their grounds.
CONTRAST = """() => {
  const canvas = new OffscreenCanvas(1, 1).getContext("2d", { willReadFrequently: true });
  const paint = colours => {
    canvas.clearRect(0, 0, 1, 1);
    for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
    return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
  };
  const light = rgb => rgb.map(c => c / 255).map(c => c <= 0.04045 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4)
    .reduce((total, c, i) => total + c * [0.2126, 0.7152, 0.0722][i], 0);
  const grounds = node => {
    const all = [];
    for (let one = node; one; one = one.parentElement) all.unshift(getComputedStyle(one).backgroundColor);
    return all;
  };
  const poor = [];
  for (const node of document.querySelectorAll("main *, header *, footer *")) {
    const own = [...node.childNodes].some(child => child.nodeType === 3 && child.data.trim());
    if (!own || !node.checkVisibility() || node.closest("svg, :disabled, [aria-disabled=true], option")) continue;
    const behind = grounds(node), a = light(paint(behind)), b = light(paint([...behind, getComputedStyle(node).color]));
    const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (contrast < 4.5) poor.push([contrast.toFixed(2), node.className, node.textContent.slice(0, 40)]);
  }
  return [poor, light(paint(grounds(document.body)))];
}"""


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_texts_can_be_read_in_both_schemes(open_report: Open, scheme: str):
    opened = open_report(report(), scheme=scheme)
    poor, ground = opened.js(CONTRAST)
    assert poor == []
    assert (ground < 0.05) == (scheme == "dark")


def test_the_theme_is_toggled_kept_and_reaches_the_plots(open_report: Open):
    opened = open_report(report(), scheme="light")
    colours = """() => [
      getComputedStyle(document.body).backgroundColor, document.getElementById("curves-plot").layout.font.color,
    ]"""
    light = opened.js(colours)
    opened.page.locator("#theme").press("Enter")
    dark = opened.js(colours)
    assert light[0] != dark[0]
    assert light[1] != dark[1]
    assert opened.page.locator("#theme").get_attribute("aria-pressed") == "true"
    opened.page.reload()
    assert opened.js(colours) == dark
    opened.page.emulate_media(color_scheme="dark")
    opened.page.locator("#theme").click()
    assert opened.js(colours) == light


def test_a_system_that_turns_dark_takes_the_page_along(open_report: Open):
    opened = open_report(report(), scheme="light")
    before = opened.js("document.getElementById('curves-plot').layout.font.color")
    opened.page.emulate_media(color_scheme="dark")
    opened.until(lambda: opened.js("document.getElementById('curves-plot').layout.font.color") != before)
    assert opened.page.locator("#theme").get_attribute("aria-pressed") == "true"
