"""The task of a text of one's own: where it is found, how it is divided, what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from harness.errors import RequestError
from harness.registry import Registry
from harness.spec import Plan, plan
from tasks.ptb import own_text
from tasks.ptb.data import Corpus
from tasks.ptb.settings import OWN_TEXT_PROFILES


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def planned(**settings: str) -> Plan:
    return plan(Registry(), "text", "dense", profile="smoke", overrides=settings)


def read(text: str, place: Path) -> Corpus:
    settings = OWN_TEXT_PROFILES["smoke"]
    return own_text.read(type(settings)(**{**settings, "text": text}), place)


def test_a_text_without_a_file_is_generated() -> None:
    data = planned().data
    assert (data.source, data.name) == ("synthetic", "generated sentences; split by line")


def test_the_last_lines_of_a_file_are_held_out(place: Path) -> None:
    (place / "tale.txt").write_text("".join(f"line {number}\n" for number in range(20)))
    corpus = read("tale.txt", place)
    assert corpus.name == "text of tale.txt; split by line"
    assert len(corpus.train) == 16 * 3
    assert corpus.validation == ["line", "16", "<eos>", "line", "17", "<eos>"]
    assert corpus.test == ["line", "18", "<eos>", "line", "19", "<eos>"]


def test_the_files_of_a_folder_are_divided_as_a_whole(place: Path) -> None:
    (place / "tales").mkdir()
    for number in range(20):
        (place / "tales" / f"{number:02}.txt").write_text(f"tale {number}\nended\n")
    corpus = read("tales", place)
    assert corpus.name == "text of tales; split by file with seed 0"
    parts = [
        {word for word in part if word.isdigit()}
        for part in (corpus.train, corpus.validation, corpus.test)
    ]
    assert list(map(len, parts)) == [16, 2, 2]
    assert set.union(*parts) == set(map(str, range(20)))


def test_a_folder_may_have_its_parts(place: Path) -> None:
    for name in own_text.PART_FILES:
        (place / name).write_text(f"this is {name}\n")
    corpus = read(str(place), place)
    assert corpus.test == ["this", "is", "test.txt", "<eos>"]


def test_a_changed_word_is_another_run(place: Path) -> None:
    lines = [f"line {number}" for number in range(200)]
    (place / "tale.txt").write_text("\n".join(lines))
    before = planned(text="tale.txt", words="0")
    (place / "tale.txt").write_text("\n".join(lines).replace("100", "one"))
    assert planned(text="tale.txt", words="0").run_id != before.run_id


def test_a_wrong_request_is_refused(place: Path) -> None:
    with pytest.raises(RequestError, match="text=nowhere is neither a file nor a folder, here or"):
        planned(text="nowhere")
    (place / "tales").mkdir()
    with pytest.raises(RequestError, match=r"text=tales has no files that end in \.txt"):
        planned(text="tales")
    (place / "tales" / "short.txt").write_text("a line\n")
    with pytest.raises(RequestError, match="tales has too few lines, 1; at least 10 are needed"):
        planned(text="tales")
    (place / "tales" / "short.txt").write_text(" \n")
    with pytest.raises(RequestError, match=r"short\.txt is empty"):
        planned(text="tales")
