"""The page in a real browser: Chromium through Playwright, from a file, without network."""

from __future__ import annotations

import re
import shutil
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from reports import report
from tests.helpers.fabricated import record, save

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    pytest.importorskip("playwright.sync_api", reason="Playwright is not installed")
    import playwright.sync_api as playwright

CHROMIUM = shutil.which("chromium")

pytestmark = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium here: apt-get install --no-install-recommends chromium"
)

QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
)


@dataclass
class Opened:
    """A page that was opened, and what it did that it should not."""

    page: playwright.Page
    address: str
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    with playwright.sync_playwright() as library:
        started = library.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield started
        started.close()


def open_page(
    browser: playwright.Browser,
    file: Path,
    *,
    width: int = 1280,
    scheme: Literal["light", "dark"] = "light",
    view: str = "",
) -> Opened:
    context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
    opened = Opened(context.new_page(), f"file://{file}")
    opened.page.on("console", lambda message: opened.complaints.append(message.text))
    opened.page.on("pageerror", lambda error: opened.complaints.append(str(error)))
    opened.page.on("request", lambda request: opened.requests.append(request.url))
    opened.page.goto(f"{opened.address}{view}")
    return opened


@pytest.fixture
def opened(browser: playwright.Browser, page: Path) -> Iterator[Opened]:
    made = open_page(browser, page)
    yield made
    made.page.context.close()


@pytest.mark.parametrize("width", [400, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_loads_without_network_and_complaints_and_fits(
    browser: playwright.Browser, page: Path, width: int, scheme: Literal["light", "dark"]
) -> None:
    opened = open_page(browser, page, width=width, scheme=scheme)
    assert opened.requests == [opened.address]
    assert opened.complaints == []
    overflow = "document.documentElement.scrollWidth - innerWidth"
    assert opened.page.evaluate(overflow) <= 0
    dark = "getComputedStyle(document.body).backgroundColor"
    lightness = sum(map(int, opened.page.evaluate(dark)[4:-1].split(",")))
    assert (lightness < 150) == (scheme == "dark")
    assert opened.page.locator("figure.chart:visible .plot svg").count() >= 15
    opened.page.context.close()


def task(opened: Opened) -> playwright.Locator:
    return opened.page.locator("#task-pictures-embedded")


def chart(opened: Opened, kind: str) -> playwright.Locator:
    return task(opened).locator(f'figure[data-chart="{kind}"]')


def text_in(place: playwright.Locator) -> str:
    return place.text_content() or ""


def state(opened: Opened) -> str:
    return str(opened.page.evaluate("decodeURIComponent(location.hash)"))


def test_the_metric_and_the_axis_can_be_chosen(opened: Opened) -> None:
    cost = chart(opened, "cost")
    assert "measured" in cost.locator(".badge").inner_text()
    cost.get_by_role("combobox", name="against").select_option("macs_effective")
    assert cost.locator(".badge").inner_text() == "theoretical"
    assert cost.locator("line.axis.theoretical").count() == 1
    assert "Multiply-accumulates of weights left (M), log" in text_in(cost.locator("svg"))
    cost.get_by_role("combobox", name="of", exact=True).select_option("validation")
    assert "Validation accuracy" in text_in(chart(opened, "sparsity").locator("svg"))
    assert "pictures-embedded.cost=macs_effective" in state(opened)
    assert opened.complaints == []


def test_axes_can_be_logarithmic(opened: Opened) -> None:
    cost = chart(opened, "cost")
    assert ", log" not in text_in(cost.locator("svg"))
    cost.get_by_role("checkbox", name="log x").check()
    assert ", log" in text_in(cost.locator("svg"))


def test_a_wide_interval_does_not_take_the_figure(
    browser: playwright.Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """From 50 to 90 within two seeds: the interval reaches from -184 to 324, far below zero."""
    monkeypatch.setattr(report, "draw_all", lambda *arguments: {})
    tests = {"dense": (95.0, 95.0), "snip": (50.0, 90.0)}
    records = [
        record(pruner=p, seed=s, quality__test=test, cost__disk_bytes=1000 * (1 + 9 * s))
        for p, both in tests.items()
        for s, test in enumerate(both)
    ]
    opened = open_page(browser, report.write(save(tmp_path / "results", records), tmp_path / "out"))
    ticks = chart(opened, "cost").locator('text[text-anchor="end"].faint').all_text_contents()
    numbers = [float(tick.replace("\N{MINUS SIGN}", "-")) for tick in ticks if tick != "dense"]
    assert 50 < min(numbers) < max(numbers) < 115
    chart(opened, "cost").get_by_role("combobox", name="against").select_option("disk_bytes")
    assert ", log" in text_in(chart(opened, "cost").locator("svg"))
    opened.page.context.close()


def test_figures_can_be_relative_to_dense(opened: Opened) -> None:
    opened.page.get_by_role("checkbox", name="relative to dense").check()
    text = text_in(chart(opened, "cost").locator("svg"))
    assert "difference to dense" in text
    assert "dense = 1" in text
    assert "relative=1" in state(opened)


def test_intervals_can_be_left_out(opened: Opened) -> None:
    bars, bands = (
        chart(opened, "cost").locator(".bar"),
        chart(opened, "sparsity").locator(".band"),
    )
    assert bars.count() > 0
    assert bands.count() > 0
    opened.page.get_by_role("checkbox", name="intervals").uncheck()
    assert (bars.count(), bands.count()) == (0, 0)


def test_a_method_is_hidden_by_its_legend_and_keeps_its_colour(opened: Opened) -> None:
    legend = task(opened).locator(".legend button")
    line = chart(opened, "sparsity").locator("path.line")
    before = line.count()
    kept = legend.filter(has_text="SNIP").locator("line").get_attribute("style")
    snap = legend.filter(has_text="SNAP")
    snap.focus()
    opened.page.keyboard.press("Enter")
    assert snap.get_attribute("aria-pressed") == "false"
    assert line.count() == before - 1
    assert legend.filter(has_text="SNIP").locator("line").get_attribute("style") == kept
    assert "hide=snap" in state(opened)


def test_tables_sort_within_their_blocks(opened: Opened) -> None:
    table = task(opened).locator("table").first
    header = table.locator("thead th", has_text="Test accuracy")
    header.get_by_role("button").click()
    assert header.get_attribute("aria-sort") == "ascending"
    block = table.locator("tbody", has_text="Unstructured, 90")
    place = "nodes => nodes.map(node => Number(node.cells[2].dataset.order))"
    values = block.locator("tr:not(.block)").evaluate_all(place)
    assert values == sorted(values)
    header.get_by_role("button").click()
    assert block.locator("tr:not(.block)").evaluate_all(place) == sorted(values, reverse=True)


def test_an_order_is_part_of_the_view(browser: playwright.Browser, page: Path) -> None:
    opened = open_page(browser, page, view="#pictures-embedded-results.sort=2+down")
    header = task(opened).locator("thead th", has_text="Test accuracy")
    assert header.get_attribute("aria-sort") == "descending"
    block = task(opened).locator("tbody", has_text="Structured, 98").first
    assert block.locator("tr").nth(1).locator("th").inner_text() == "EarlyCroP-S"
    opened.page.get_by_role("button", name="reset").click()
    assert header.get_attribute("aria-sort") is None
    assert block.locator("tr").nth(1).locator("th").inner_text() == "CroP-S"
    opened.page.context.close()


def test_another_view_can_be_put_into_the_address(opened: Opened) -> None:
    with opened.page.expect_navigation():
        opened.page.evaluate("location.hash = 'relative=1'")
    assert opened.page.get_by_role("checkbox", name="relative to dense").is_checked()


def test_a_view_can_be_sent(browser: playwright.Browser, page: Path) -> None:
    view = "#pictures-embedded.cost=disk_bytes&hide=snip%7Cltr&theme=dark&relative=1"
    opened = open_page(browser, page, view=view)
    assert (
        chart(opened, "cost").get_by_role("combobox", name="against").input_value() == "disk_bytes"
    )
    assert opened.page.get_by_role("checkbox", name="relative to dense").is_checked()
    pressed = task(opened).locator('.legend button[aria-pressed="false"]')
    assert sorted(pressed.all_inner_texts()) == ["LTR", "SNIP"]
    assert opened.page.evaluate("document.documentElement.dataset.theme") == "dark"
    opened.page.get_by_role("button", name="reset").click()
    assert state(opened) in ("", "#")
    assert (
        chart(opened, "cost").get_by_role("combobox", name="against").input_value()
        == "train_seconds"
    )
    opened.page.context.close()


def test_a_point_leads_to_its_runs_by_keyboard(opened: Opened) -> None:
    point = chart(opened, "cost").get_by_role("button", name="EarlyCroP-S at 98 %")
    assert "Test accuracy" in (point.get_attribute("aria-label") or "")
    point.focus()
    opened.page.keyboard.press("Enter")
    dialog = opened.page.get_by_role("dialog")
    text = dialog.inner_text()
    assert "--pruner earlycrop_s --sparsity 0.98 --seed 2" in text
    assert "commit 0123456789ab" in text
    assert "Abacus 1, 1 thread" in text
    assert "torch 2.14.1" in text
    opened.page.keyboard.press("Escape")
    assert not dialog.is_visible()


def test_the_arrows_go_from_point_to_point(opened: Opened) -> None:
    points = chart(opened, "cost").locator("g.point")
    points.first.focus()
    opened.page.keyboard.press("ArrowRight")
    here = "document.activeElement.getAttribute('aria-label')"
    assert opened.page.evaluate(here) == points.nth(1).get_attribute("aria-label")
    assert chart(opened, "cost").locator('g.point[tabindex="0"]').count() == 1


def test_a_missing_cell_leads_to_the_command_that_runs_it(opened: Opened) -> None:
    opened.page.locator("#overview td.missing a").first.click()
    text = opened.page.get_by_role("dialog").inner_text()
    assert "missing: requested, not run yet" in text
    assert "python -m harness run --task pole --pruner ltr" in text


def test_a_task_without_results_has_no_charts(opened: Opened) -> None:
    empty = opened.page.locator("#task-words-paper")
    assert "nothing to draw" in empty.inner_text()
    assert "words.txt: No such file or directory" in empty.inner_text()
    assert empty.locator("figure").count() == 0
    assert opened.complaints == []


def test_a_failed_cell_leads_to_its_traceback(opened: Opened) -> None:
    opened.page.locator("#overview td.failed a").first.click()
    text = opened.page.get_by_role("dialog").inner_text()
    assert 'File "harness/run.py", line 1, in train' in text
    assert "run=pictures-grasp-0.98-seed1" in state(opened)


def test_the_front_and_what_it_dominates(opened: Opened) -> None:
    cost = chart(opened, "cost")
    assert cost.locator("path.front").count() == 1
    assert 0 < cost.locator(".dominated").count() < cost.locator("g.point").count()
    cost.get_by_role("combobox", name="against").select_option("emissions_g")
    assert cost.locator("path.front").count() == 0
    assert "Estimates are not ranked" in cost.locator("figcaption").inner_text()


def test_pruning_is_marked_and_the_trigger_told(opened: Opened) -> None:
    assert chart(opened, "training").locator("path.moment").count() >= 10
    trigger = chart(opened, "trigger")
    assert "EarlyCroP-U: fired 3 times" in trigger.locator("figcaption").inner_text()
    assert trigger.locator('path[stroke-dasharray="1 4"]').count() >= 1
    sparsity = chart(opened, "training").get_by_role("combobox", name="at", exact=True)
    sparsity.select_option("0.9")
    assert "pictures-embedded.at=0.9" in state(opened)


def test_figures_have_names_for_those_who_do_not_see_them(opened: Opened) -> None:
    for figure in opened.page.locator("figure.chart .plot svg").all():
        assert figure.get_attribute("aria-label")


def test_printing_leaves_the_controls_out(opened: Opened) -> None:
    opened.page.emulate_media(media="print")
    assert not opened.page.locator(".toolbar").is_visible()
    assert opened.page.locator("#overview table").first.is_visible()
    assert opened.complaints == []


def test_every_number_of_a_result_table_leads_to_its_runs(opened: Opened) -> None:
    table = task(opened).locator("table").first
    row = table.locator("tr", has=opened.page.get_by_role("rowheader", name="CroP-S")).first
    cells = row.locator("td").filter(has_not_text="\N{EN DASH}")
    assert cells.count() == 23
    assert cells.locator("a").count() == 23
    for place in (0, 1, 12, 22):
        cells.nth(place).locator("a").click()
        dialog = opened.page.get_by_role("dialog")
        assert "--pruner crop_s --sparsity 0.9 --seed 2" in dialog.inner_text()
        opened.page.keyboard.press("Escape")
    assert opened.complaints == []


def test_the_runs_of_a_group_show_their_costs(opened: Opened) -> None:
    task(opened).locator("td a").first.click()
    numbers = opened.page.get_by_role("dialog").locator("table.numbers")
    assert numbers.locator("thead th").all_inner_texts() == [
        *("Of each run", "seed 0", "seed 1", "seed 2")
    ]
    dense = [record("pictures", "dense", 0.0, seed)["cost"] for seed in range(3)]
    row = numbers.locator("tr", has_text="Training step (ms)").locator("td")
    shown = [float(text) for text in row.all_inner_texts()]
    assert shown == pytest.approx([cost["step_ms"] for cost in dense], rel=1e-3)
    assert numbers.locator("tr", has_text="Energy (Wh)").inner_text().count("~") == 3


@pytest.mark.parametrize("width", [600, 1280, 1900])
def test_the_head_of_a_long_table_stays(
    browser: playwright.Browser, page: Path, width: int
) -> None:
    opened = open_page(browser, page, width=width)
    last = task(opened).locator("table tbody tr").last
    last.scroll_into_view_if_needed()
    last.hover()
    head = task(opened).locator("table thead th", has_text="Method").first
    box, row = head.bounding_box(), last.bounding_box()
    assert box is not None
    assert row is not None
    assert box["y"] >= 0
    assert box["y"] + box["height"] <= row["y"] + 1 < 900
    on_top = "([x, y]) => document.elementFromPoint(x, y).closest('th')?.innerText"
    middle = [box["x"] + box["width"] / 2, box["y"] + box["height"] - 8]
    assert opened.page.evaluate(on_top, middle) == "Method"
    opened.page.context.close()


def test_a_wide_screen_is_used(browser: playwright.Browser, page: Path) -> None:
    opened = open_page(browser, page, width=2300)
    host = task(opened).locator(".scroll").first
    assert host.evaluate("node => node.scrollWidth <= node.clientWidth + 1")
    assert opened.page.evaluate("document.querySelector('main').clientWidth") > 2100
    opened.page.context.close()


@pytest.fixture
def written(
    browser: playwright.Browser, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Opened]]:
    """Write the report on records without its figures and open it."""
    monkeypatch.setattr(report, "draw_all", lambda *arguments: {})
    made: list[Opened] = []

    def open_report(records: list[dict[str, Any]], **options: Any) -> Opened:
        page = report.write(save(tmp_path / "results", records), tmp_path / "out")
        made.append(open_page(browser, page, **options))
        return made[-1]

    yield open_report
    for each in made:
        each.page.context.close()


def pruned_at(*epochs: float, pruner: str = "snip") -> dict[str, Any]:
    """Return the record of a run of four epochs that was pruned after so many of them."""
    made = record(pruner=pruner, cost__epochs=4.0, cost__steps=40)
    training = [event for event in made["events"] if event["verb"] == "train"][:1]
    training[0]["epochs"] = [
        {"position": s, "spent": s, "loss": 1.0, "validation": {"accuracy": float(a)}}
        for s, a in ((10, 50), (20, 70), (30, 80), (40, 84))
    ]
    prunings = [
        {"verb": "prune", "position": s, "spent": s, "units": "weights", "target": 0.98}
        for s in (round(10 * epoch) for epoch in epochs)
    ]
    return {**made, "events": [*training, *prunings]}


def test_inference_over_the_length_of_sequences_is_drawn_also_relative_to_dense(
    written: Callable[..., Opened],
) -> None:
    def takes(pruner: str, *times: float) -> dict[str, Any]:
        lengths = {
            length: {"inference_ms": time} for length, time in zip("248", times, strict=True)
        }
        made: dict[str, Any] = record(pruner=pruner, cost__by_length=lengths)
        return made

    opened = written([takes("dense", 2.0, 4.0, 8.0), takes("snap", 1.0, 1.0, 1.0)])
    points = chart(opened, "lengths").locator("g.point")
    assert points.count() == 6
    assert (
        points.first.get_attribute("aria-label") == "Dense, length 2: Inference of a batch (ms) 2"
    )
    opened.page.get_by_role("checkbox", name="relative to dense").check()
    said = [points.nth(place).get_attribute("aria-label") or "" for place in range(3, 6)]
    assert [each.partition(": ")[2] for each in said] == [
        f"Inference of a batch, dense = 1 {ratio}" for ratio in ("0.5", "0.25", "0.125")
    ]


def test_prunings_are_drawn_at_their_own_moments(written: Callable[..., Opened]) -> None:
    opened = written([pruned_at(0, 0.6, 1.5, 4), pruned_at(0, pruner="ltr")])
    figure = chart(opened, "training")
    diamond = """node => {
        const box = node.getBBox();
        return [Number(node.dataset.epoch), box.x + box.width / 2, box.y + box.height / 2];
    }"""
    marks = figure.locator("path.moment")
    snip = [
        marks.nth(place).evaluate(diamond)
        for place in range(marks.count())
        if marks.nth(place).get_attribute("data-method") == "snip"
    ]
    assert [epoch for epoch, _, _ in snip] == [0, 0.6, 1.5, 4]
    # On a linear axis from 0 equal distances in epochs are equal distances on the screen.
    origin, unit = snip[0][1], (snip[3][1] - snip[0][1]) / 4
    axis = figure.locator("line.axis").first
    assert origin == pytest.approx(float(axis.get_attribute("x1") or "nan"), abs=0.1)
    for epoch, x, _ in snip:
        assert x == pytest.approx(origin + epoch * unit, abs=0.1)
    bottom = float(axis.get_attribute("y1") or "nan")
    assert bottom - 8 < snip[1][2] < bottom
    line = figure.locator("path.line").first.get_attribute("d") or ""
    points = [tuple(map(float, pair.split())) for pair in re.split("[ML]", line)[1:]]
    halfway = (points[0][1] + points[1][1]) / 2
    assert snip[2][2] == pytest.approx(halfway, abs=0.2)
    assert snip[3][2] == pytest.approx(points[3][1], abs=0.2)
    # Two methods pruned at once: one diamond above the other.
    heights = {round(marks.nth(place).evaluate(diamond)[2]) for place in (0, marks.count() - 1)}
    assert len(heights) == 2


def test_one_sparsity_has_a_sentence_and_no_chart(written: Callable[..., Opened]) -> None:
    opened = written([record(), record(pruner="dense")])
    assert chart(opened, "sparsity").count() == 0
    assert "run at one sparsity, 98 %, so there is no curve" in text_of(opened)
    assert not chart(opened, "trigger").is_visible()


def text_of(opened: Opened) -> str:
    return str(task(opened).inner_text()).replace("\N{NO-BREAK SPACE}", " ")


@pytest.mark.parametrize("width", [400, 600, 1900])
def test_no_label_of_a_chart_is_cut(written: Callable[..., Opened], width: int) -> None:
    long = "A method with a name of sixty letters and then some more words"
    titles = {"dense": "Dense", "earlycrop_u": long, "snip": "criterion_of_" + "x" * 47}
    runs = [
        record(
            "pictures",
            pruner,
            sparsity,
            pruner__title=title,
            task__title=long,
            data__source="synthetic",
            data__name=long,
        )
        for pruner, title in titles.items()
        for sparsity in ((0.9, 0.98) if pruner != "dense" else (0.0,))
    ]
    opened = written(runs, width=width)
    cut = """nodes => nodes.filter(node => {
        const text = node.getBoundingClientRect();
        const whole = node.closest("figure").getBoundingClientRect();
        return text.left < whole.left || text.bottom > whole.bottom || text.top < whole.top
            || (text.right > whole.right && !node.closest(".heat"));
    }).map(node => node.textContent)"""
    texts = opened.page.locator("figure.chart:visible .plot text")
    assert texts.count() > 20
    assert texts.evaluate_all(cut) == []
    density = chart(opened, "density").locator("svg")
    inside = """svg => [...svg.querySelectorAll("text")].every(text => text.getBBox().x >= 0)"""
    assert density.evaluate(inside)
    assert opened.page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0


def test_a_disturbed_cost_is_marked_and_explained(written: Callable[..., Opened]) -> None:
    disturbed = record(pruner="crop_s", cost__disturbed={"step_ms": 0.3}, cost__step_ms=0.1)
    opened = written([disturbed, record(pruner="dense"), record(pruner="snip")])
    cost = chart(opened, "cost")
    cost.get_by_role("combobox", name="against").select_option("step_ms")
    point = cost.locator("g.point.disturbed")
    assert point.count() == 1
    assert "fill:none" in (point.locator("path.mark").get_attribute("style") or "")
    assert point.locator("text").text_content() == "*"
    assert "other programs disturbed" in cost.locator("figcaption").inner_text()
    assert "CroP-S" not in cost.locator("figcaption").inner_text()
    point.click()
    dialog = opened.page.get_by_role("dialog")
    assert dialog.locator("tr", has_text="Training step").locator("td").inner_text() == "0.1*"
    assert "Training step (ms) (waited for a processor for 30 % of the time)" in dialog.inner_text()
    opened.page.keyboard.press("Escape")
    cost.get_by_role("combobox", name="against").select_option("train_seconds")
    assert cost.locator("g.point.disturbed").count() == 0
