"""What a report leaves in its folder."""

from __future__ import annotations

import csv
import hashlib
import re
from pathlib import Path

import pytest
from fabricated import record, save, suite, two_thousand

from harness.command_line import main
from reports import exports
from reports.page import embedded
from reports.provenance import without_paths
from reports.report import write
from reports.tables import Block, Cell, Table, signed

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


def test_every_figure_and_table_of_synthetic_data_is_stamped(twice: tuple[Path, Path]) -> None:
    files = [f for f in twice[0].rglob("*pole*") if f.suffix in (".svg", ".csv", ".md", ".tex")]
    assert len(files) == 8
    for file in files:
        assert "SYNTHETIC" in file.read_text(encoding="utf-8"), file


def test_the_page_names_every_file_that_it_links_to(twice: tuple[Path, Path]) -> None:
    html = (twice[0] / "index.html").read_text(encoding="utf-8")
    linked = re.findall(r'href="((?:tables|figures)/[^"]+)"', html)
    assert len(linked) >= 7
    assert [name for name in linked if not (twice[0] / name).exists()] == []


def test_it_tells_where_the_page_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("reports.report.draw_all", lambda *arguments: {})
    save(tmp_path / "results", [record()])
    words = ["report", "--results", str(tmp_path / "results"), "--out", str(tmp_path / "out")]
    assert main(words) == 0
    assert capsys.readouterr().out.strip() == str(tmp_path / "out" / "index.html")


@pytest.mark.parametrize(
    ("records", "said"),
    [
        ([record()], "no dense run"),
        ([record(pruner="dense"), record()], "too few seeds to tell"),
        ([record(status="failed", reason="it broke")], "1 failed"),
        ([record(quality__test=None, quality__validation=None)], "is no finite number"),
    ],
    ids=["one run", "one seed", "only failures", "nothing finite"],
)
def test_poor_results_are_told_to_be_so(
    tmp_path: Path, records: list[dict[str, object]], said: str
) -> None:
    page = write(save(tmp_path / "results", records), tmp_path / "out")
    assert said in page.read_text(encoding="utf-8")


def test_nothing_but_damaged_records_still_gives_a_page(tmp_path: Path) -> None:
    (tmp_path / "results" / "bad").mkdir(parents=True)
    (tmp_path / "results" / "bad" / "record.json").write_text("{")
    html = write(tmp_path / "results", tmp_path / "out").read_text(encoding="utf-8")
    assert "No run can be read" in html
    assert "bad: record.json: is damaged" in html


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
    row = [Cell("CroP_S"), Cell("\N{MINUS SIGN}1.5", rank="best"), Cell("2", rank="second")]
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
        "| CroP\\_S | **\N{MINUS SIGN}1.5** | <u>2</u> |",
    ]
    latex = exports.to_latex(table)
    assert r"\caption{A \& B. SYNTHETIC}" in latex
    assert r"CroP\_S & \textbf{$-$1.5} & \underline{2} \\" in latex


def test_a_difference_of_rounding_is_none() -> None:
    assert signed(98.7 - 98.6 - 0.1) == "0"
    assert (signed(0.046), signed(-0.0021)) == ("+0.046", "\N{MINUS SIGN}0.0021")


def test_in_csv_a_number_stands_alone() -> None:
    row = [Cell("SNIP"), Cell("\N{MINUS SIGN}1.5", detail="n=3", state="worse", symbol="x")]
    table = Table("t", "A", ["Method", "x"], [Block("", [row])])
    assert exports.to_csv(table) == (
        "Block,Method,x,x: interval or remark\n,SNIP,-1.5,worse (n=3)\n"
    )
    assert exports.to_markdown(table).splitlines()[-1] == ("| SNIP | x \N{MINUS SIGN}1.5 (n=3) |")


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
    records = two_thousand()
    assert len(records) >= 2000
    page = write(save(tmp_path / "results", records), tmp_path / "out")
    assert page.stat().st_size <= 5_000_000
