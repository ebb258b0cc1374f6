"""What a report leaves in its folder."""

from __future__ import annotations

import csv
import errno
import hashlib
import math
import re
from pathlib import Path
from typing import Any, cast

import pytest

from benchmarks.speed.commands import records as two_thousand
from harness.command_line import main
from harness.storage import files
from reports import exports
from reports.groups import pooled, sections
from reports.page import embedded
from reports.provenance import without_paths
from reports.report import write
from reports.results import read
from reports.tables import NONE, Block, Cell, Table, signed
from tests.helpers.fabricated import record, save, save_matrix, slim, suite

HOSTILE = "</script><img src=x onerror=alert(1)> & \\input{x} $x$ |`=1+1"


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def twice(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The same small results in two folders, in another order, and the reports on them."""
    records = suite(("pole",), ("dense", "earlycrop_s", "snip"), (0.98,), (0, 1, 2))
    made = []
    for ordered in (records, records[::-1]):
        folder = save(tmp_path_factory.mktemp("results"), ordered)
        made.append(write(folder, tmp_path_factory.mktemp("report")).parent)
    return made[0], made[1]


def test_the_same_results_give_the_same_bytes(twice: tuple[Path, Path]) -> None:
    first, second = map(hashes, twice)
    assert first == second
    assert {"index.html", "figures/pole-embedded-costs.png", "figures/ranking.svg"} <= first.keys()
    for table in ("matrix", "ranking", "claims"):
        assert {f"tables/{table}.{kind}" for kind in ("csv", "md", "tex")} <= first.keys()


def test_only_real_data_that_stand_in_for_others_are_stamped(tmp_path: Path) -> None:
    def stamp(**changes: Any) -> str | None:
        made = record("shapes", data__source="real", **changes)
        if "data__stands_in_for" not in changes:
            del made["data"]["stands_in_for"]
        folder = save(tmp_path / str(len(list(tmp_path.iterdir()))), [made])
        (section,) = sections(read(folder))
        return section.stamp

    stand_in = "STAND-IN DATA: shapes for tests"
    assert stamp(data__stands_in_for="CIFAR-10") == stand_in
    assert stamp(data__stands_in_for=None) is None
    # Records without the key: those of a plug-in, whose version is a hash, are a user's own.
    assert stamp() == stand_in
    assert stamp(task__version="0123abcd") is None
    assert stamp(data__stands_in_for="CIFAR-10", task__version="0123abcd") == stand_in


@pytest.mark.usefixtures("undrawn")
def test_unofficial_data_are_stamped_and_never_beside_official_ones(tmp_path: Path) -> None:
    official = record("shapes", data__source="official")
    other = record(
        "shapes",
        data__source="unofficial",
        data__sha256="1" * 64,
        spec__overrides={"accept": "unofficial"},
        run_id="other",
    )
    for each, accept in ((official, "official"), (other, "unofficial")):
        each["settings"]["accept"] = accept
    folder = save(tmp_path / "results", [official, other])
    found = sections(read(folder))
    stamps = {section.setting: section.stamp for section in found}
    assert [section.source for section in pooled(found)] == ["official"]
    assert pooled(found[1:]) == found[1:]
    stamp = "UNOFFICIAL DATA: shapes for tests"
    assert stamps == {"": None, "accept=unofficial": stamp}
    report = write(folder, tmp_path / "out")
    assert stamp in report.read_text(encoding="utf-8")
    (table,) = report.parent.glob("tables/shapes*unofficial*.csv")
    assert stamp in table.read_text(encoding="utf-8")


@pytest.mark.usefixtures("undrawn")
def test_data_without_a_stamp_are_named_below_the_table(tmp_path: Path) -> None:
    own = record("shapes", data__source="real", data__stands_in_for=None)
    html = write(save(tmp_path / "results", [own]), tmp_path / "out").read_text(encoding="utf-8")
    assert "STAND-IN DATA" not in html
    assert "Data: shapes for tests (real)." in html


def test_every_figure_and_table_of_synthetic_data_is_stamped(twice: tuple[Path, Path]) -> None:
    files = [f for f in twice[0].rglob("*pole*") if f.suffix in (".svg", ".csv", ".md", ".tex")]
    assert len(files) == 7
    for file in files:
        assert "SYNTHETIC" in file.read_text(encoding="utf-8"), file


def test_the_page_names_every_file_that_it_links_to(twice: tuple[Path, Path]) -> None:
    html = (twice[0] / "index.html").read_text(encoding="utf-8")
    linked = re.findall(r'href="((?:tables|figures)/[^"]+)"', html)
    assert len(linked) >= 7
    assert [name for name in linked if not (twice[0] / name).exists()] == []


@pytest.mark.usefixtures("undrawn")
def test_it_tells_where_the_page_is(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save(tmp_path / "results", [record()])
    words = ["report", "--results", str(tmp_path / "results"), "--out", str(tmp_path / "out")]
    assert main(words) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "out" / "index.html")


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([record()], "no dense run"),
        ([record(pruner="dense"), record()], "too few seeds"),
        ([record(status="failed", reason="it broke")], "1 failed"),
        ([record(quality__test=None, quality__validation=None)], "is not finite"),
    ],
    ids=["one run", "one seed", "only failures", "nothing finite"],
)
@pytest.mark.usefixtures("undrawn")
def test_poor_results_are_told_to_be_so(
    tmp_path: Path, records: list[dict[str, Any]], said: str
) -> None:
    page = write(save(tmp_path / "results", records), tmp_path / "out")
    assert said in page.read_text(encoding="utf-8")


@pytest.mark.usefixtures("undrawn")
def test_a_report_on_own_methods_and_tasks_is_without_the_paper(tmp_path: Path) -> None:
    own = [
        record("shapes", pruner, seed=s) for pruner in ("dense", "mine", "other") for s in (0, 1)
    ]
    out = write(save(tmp_path / "results", own), tmp_path / "out").parent
    html = (out / "index.html").read_text(encoding="utf-8")
    assert "No method of the EarlyCroP paper" in html
    assert "Claims</a>" not in html
    assert "Reference the talk" not in html
    names = {path.name for path in (out / "tables").iterdir()}
    assert not [name for name in names if name.startswith(("claims", "published"))]


@pytest.mark.usefixtures("undrawn")
def test_claims_for_which_nothing_was_run_are_one_line(page: Path, tmp_path: Path) -> None:
    runs = [
        record(pruner=pruner, seed=s) for pruner in ("dense", "snip", "crop_u") for s in (0, 1, 2)
    ]
    html = write(save(tmp_path / "results", runs), tmp_path / "out").read_text(encoding="utf-8")
    assert html.count('<details class="claim') < page.read_text().count('<details class="claim')
    assert re.search(r"\d other claims without any runs", html)


@pytest.mark.usefixtures("undrawn")
def test_a_ranking_says_who_is_in_none_and_why(tmp_path: Path) -> None:
    runs = suite(("pictures", "words"), ("dense", "snip", "crop_u"), (0.98,))
    runs += [slim("pictures", seed, 36_000, 91.0) for seed in range(3)]
    runs += suite(("pole",), ("snip",), (0.98,))
    out = write(save(tmp_path / "results", runs), tmp_path / "out").parent
    html = (out / "index.html").read_text(encoding="utf-8")
    assert "Every method on every task" not in html
    assert "The 2 methods that were run on every task and sparsity" in html
    for text in (html, (out / "tables" / "ranking.md").read_text(encoding="utf-8")):
        assert (
            "A pole, MLP is in no ranking: there is no dense result to normalise scores by." in text
        )
        assert "Slim dense is in no ranking: it was given no sparsity." in text


@pytest.mark.usefixtures("undrawn")
def test_all_of_a_ranking_is_said_where_it_is_all(tmp_path: Path) -> None:
    runs = suite(("pictures", "words"), ("dense", "snip", "crop_u"), (0.98,))
    html = write(save(tmp_path / "results", runs), tmp_path / "out").read_text(encoding="utf-8")
    assert "Every method on every task" in html
    assert "is in no ranking" not in html


@pytest.mark.parametrize("full", ["index.html", "runs.csv", "figures", "tables"])
def test_a_full_disk_is_one_line(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    full: str,
) -> None:
    put = files.disk.write

    def fail(path: Path, mode: str, content: bytes) -> None:
        if full in (path.parent.name, path.name.removesuffix(".unfinished")):
            raise OSError(errno.ENOSPC, "No space left on device")
        put(path, mode, content)

    monkeypatch.setattr(files.disk, "write", fail)
    save(tmp_path / "results", [record(), record(pruner="dense")])
    words = ["report", "--results", str(tmp_path / "results"), "--out", str(tmp_path / "out")]
    assert main(words) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert re.fullmatch(r"failed: cannot write \S+: No space left on device\n", said.err)


@pytest.mark.usefixtures("undrawn")
def test_nothing_but_damaged_records_still_gives_a_page(tmp_path: Path) -> None:
    (tmp_path / "results" / "bad").mkdir(parents=True)
    (tmp_path / "results" / "bad" / "record.json").write_text("{")
    html = write(tmp_path / "results", tmp_path / "out").read_text(encoding="utf-8")
    assert "No run can be read" in html
    assert "bad: record.json is damaged" in html


@pytest.mark.usefixtures("undrawn")
def test_hostile_names_become_neither_markup_nor_commands_nor_formulas(tmp_path: Path) -> None:
    hostile = [
        record(
            pruner=pruner,
            pruner__title=f"{HOSTILE}{pruner}",
            task__title=f"=cmd|' /C calc'!A0{HOSTILE}",
            reason=HOSTILE,
            status="collapsed",
            data__name=HOSTILE,
        )
        for pruner in ("dense", "snip", "crop_s")
    ]
    out = write(save(tmp_path / "results", hostile), tmp_path / "out").parent
    html = (out / "index.html").read_text(encoding="utf-8")
    assert "<img" not in html
    assert html.count("</script>") == 2
    for table in (out / "tables").glob("*.csv"):
        with table.open(newline="") as file:
            cells = [cell for row in csv.reader(file) for cell in row]
        assert not [c for c in cells if re.match(r"[=@]|[+-](?![\d,.]+$)", c)], table
    latex = (out / "tables" / "matrix.tex").read_text(encoding="utf-8")
    assert "\\input{x}" not in latex
    assert "\\textbackslash{}input\\{x\\} \\$x\\$" in latex
    markdown = (out / "tables" / "matrix.md").read_text(encoding="utf-8")
    assert "<img" not in markdown
    assert "\\|\\`=1+1" in markdown


@pytest.mark.parametrize(
    ("text", "field"),
    [
        ("=1+1", "'=1+1"),
        ("@SUM(A1)", "'@SUM(A1)"),
        ("-1.25", "-1.25"),
        ("+3e-5", "+3e-5"),
        ("-2+3", "'-2+3"),
        ("\tx", "'\tx"),
        ("SNIP", "SNIP"),
        (None, ""),
    ],
)
def test_numbers_stay_numbers_and_formulas_become_text(text: str | None, field: str) -> None:
    assert exports.as_field(text) == field


def test_tables_in_three_formats() -> None:
    row = [Cell("CroP_S"), Cell("\N{MINUS SIGN}1.5", rank="best"), Cell("2")]
    table = Table("t", "A & B", ["Method", "x", "y %"], [Block("All", [row])], stamp="SYNTHETIC")
    assert exports.to_csv(table) == ("Block,Method,x,y %,Stamp\nAll,CroP_S,-1.5,2,SYNTHETIC\n")
    assert exports.to_markdown(table).splitlines() == [
        "**A &amp; B**",
        "",
        "SYNTHETIC",
        "",
        "| Method | x | y % |",
        "| --- | ---: | ---: |",
        "| *All* |  |  |",
        "| CroP\\_S | **\N{MINUS SIGN}1.5** | 2 |",
    ]
    latex = exports.to_latex(table)
    assert r"\caption{A \& B. SYNTHETIC}" in latex
    assert r"CroP\_S & \textbf{$-$1.5} & 2 \\" in latex


def test_a_difference_of_rounding_is_none() -> None:
    assert signed(98.7 - 98.6 - 0.1) == "0"
    assert (signed(0.046), signed(-0.0021)) == ("+0.046", "\N{MINUS SIGN}0.0021")


def test_in_csv_a_number_stands_alone() -> None:
    row = [Cell("SNIP"), Cell("\N{MINUS SIGN}1.5", detail="n=3", state="worse", symbol="x")]
    table = Table("t", "A", ["Method", "x"], [Block("", [row])])
    assert exports.to_csv(table) == "Block,Method,x,x: remark\n,SNIP,-1.5,worse (n=3)\n"
    assert exports.to_markdown(table).splitlines()[-1] == ("| SNIP | x \N{MINUS SIGN}1.5 (n=3) |")


def test_in_csv_numbers_are_plain_and_intervals_beside_them() -> None:
    minus = "\N{MINUS SIGN}"
    rows = [
        [
            Cell("SNIP"),
            Cell("2,797", order=2796.5, low=2700.25, high=2892.75),
            Cell("~0.2000", "estimated, not ranked", order=0.2),
            Cell("1 (2 failed of 3)", order=1),
        ],
        [Cell("GraSP"), Cell(NONE, "not measured"), Cell(f"{minus}3", order=-3.0), Cell("3")],
    ]
    table = Table("t", "A", ["Method", "x", "y", "Seeds"], [Block("All", rows)])
    assert exports.to_csv(table).splitlines() == [
        "Block,Method,x,x: low,x: high,x: remark,y,y: remark,Seeds,Seeds: remark",
        "All,SNIP,2796.5,2700.25,2892.75,,0.2,estimated,1,1 (2 failed of 3)",
        "All,GraSP,,,,not measured,-3,,3,",
    ]


def test_markdown_and_latex_hold_the_intervals(twice: tuple[Path, Path]) -> None:
    tables = twice[0] / "tables"
    for kind in ("md", "tex"):
        text = (tables / f"pole-embedded-results.{kind}").read_text(encoding="utf-8")
        (row,) = [line for line in text.splitlines() if "SNIP" in line]
        cells = row.split("|" if kind == "md" else "&")
        with_interval = [cell for cell in cells if re.search(r"\d \(\S+ to \S+\)", cell)]
        # The metric and its difference to dense, seven measured costs and six computed ones, of
        # which those that are equal for all seeds have intervals of no width.
        assert len(with_interval) >= 12, kind


@pytest.mark.usefixtures("undrawn")
def test_a_row_for_each_run_with_plain_numbers(tmp_path: Path) -> None:
    records = [
        record(quality__test=2797.25, cost__energy_kwh=None, cost__macs=2797),
        record(pruner="dense", spec__overrides={"width": 8}, cost__step_ms=1e-5),
        record(pruner="=1+1", status="failed", reason="cannot read /home/me/data/x.py"),
    ]
    missing = record(pruner="ltr", status="missing")
    save_matrix(save(tmp_path / "results", records), [*records, missing])
    out = write(tmp_path / "results", tmp_path / "out").parent
    with (out / "runs.csv").open(newline="", encoding="utf-8") as file:
        rows = {row["run_id"]: row for row in csv.DictReader(file)}
    assert rows.keys() == {each["run_id"] for each in records}
    snip, dense, failed = (rows[each["run_id"]] for each in records)
    assert (snip["status"], snip["counted"], snip["spec.task"]) == ("done", "true", "pictures")
    assert (snip["quality.test"], snip["cost.macs"]) == ("2797.25", "2797")
    assert (snip["cost.energy_kwh"], snip["data.source"]) == ("", "official")
    assert (dense["spec.overrides"], dense["cost.step_ms"]) == ('{"width": 8}', "1e-05")
    assert (snip["spec.seed"], snip["spec.sparsity"]) == ("0", "0.98")
    assert (failed["quality.test"], failed["cost.step_ms"]) == ("", "")
    assert failed["reason"] == "cannot read x.py"
    assert failed["spec.pruner"] == "'=1+1"
    assert {"sparsity.weights", "provenance.device", "quality.goal"} <= failed.keys()


@pytest.mark.usefixtures("undrawn")
def test_runs_that_do_not_count_are_rows_all_the_same(tmp_path: Path) -> None:
    again = record(run_id="again", provenance__started="2027-01-01T00:00:00+00:00")
    out = write(save(tmp_path / "results", [record(), again]), tmp_path / "out").parent
    with (out / "runs.csv").open(newline="", encoding="utf-8") as file:
        counted = {row["run_id"]: row["counted"] for row in csv.DictReader(file)}
    assert counted == {record()["run_id"]: "false", "again": "true"}


@pytest.mark.usefixtures("undrawn")
@pytest.mark.parametrize(
    "changes",
    [
        {"quality__test": math.inf, "quality__validation": math.nan},
        {"cost__parameters": 10**400},
        {"quality__baseline": 10**400},
        {"cost__train_seconds": -1.0, "cost__step_ms": 0.0},
        {"cost__steps": 0, "cost__epochs": 0.0},
        {"sparsity__per_layer": [{"name": "a", "shape": [0, 3], "weights": 0, "kept": 0}]},
        {"sparsity__weights": 1.0},
        {"cost__disturbed": {"step_ms": math.nan, "energy_kwh": {"by": "others"}}},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_odd_numbers_in_one_record_do_not_stop_the_report(
    tmp_path: Path, changes: dict[str, Any]
) -> None:
    odd = record(pruner="crop_s", **changes)
    runs = [odd, *(record(pruner=p, seed=s) for p in ("dense", "snip", "crop_s") for s in (1, 2))]
    html = write(save(tmp_path / "results", runs), tmp_path / "out").read_text(encoding="utf-8")
    assert "CroP-S" in html
    assert (tmp_path / "out" / "runs.csv").exists()


def test_data_in_a_script_cannot_end_it() -> None:
    assert embedded({"a": "</script>"}) == '{"a":"\\u003c/script\\u003e"}'


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('File "/home/me/pruning/harness/run.py", line 3', 'File "harness/run.py", line 3'),
        ("/usr/lib/python3/site-packages/torch/nn/x.py: bad", "torch/nn/x.py: bad"),
        ("/data/me/secret/plugin.py", "plugin.py"),
        (r"C:\Users\me\x.py", "x.py"),
        ("B / A and 1/2 and https://x.org/a/b", "B / A and 1/2 and https://x.org/a/b"),
        ("--set text=/home/me/books", "--set text=books"),
    ],
)
def test_paths_begin_at_the_package(text: str, shown: str) -> None:
    assert without_paths(text) == shown


def test_the_report_names_no_folder_of_this_machine(page: Path, eventful: Path) -> None:
    html = page.read_text(encoding="utf-8")
    assert str(eventful) not in html
    assert "/home/" not in html
    assert "harness/run.py" in html
    assert "RuntimeError: it broke" in html


@pytest.mark.slow
def test_two_thousand_runs_fit_into_five_megabytes(tmp_path: Path) -> None:
    records = [cast(dict[str, Any], each) for each in two_thousand()]
    assert len(records) >= 2000
    page = write(save(tmp_path / "results", records), tmp_path / "out")
    assert page.stat().st_size <= 5_000_000
