"""The reader that goes through torchtext, which only `tox -e torchtext` has."""

from __future__ import annotations

import hashlib
import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest

from harness.command_line import main
from tasks.ptb import data
from tasks.ptb.settings import TEXT

INSTALLED = importlib.util.find_spec("torchtext") is not None
with_torchtext = pytest.mark.skipif(not INSTALLED, reason="torchtext: tox -e torchtext")

TEXTS = {
    "train": " the cat <unk> the N cats \n the dog \n\n a cat of N <unk> \n",
    "valid": " a dog \n",
    "test": " the zebra of N \n",
}


@pytest.fixture
def official(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with texts in the official format, whose checksums count as the right ones."""
    import torchtext

    torchtext.disable_torchtext_deprecation_warning()
    from torchtext.datasets import penntreebank

    (tmp_path / "ptb").mkdir()
    for part, text in TEXTS.items():
        (tmp_path / "ptb" / f"ptb.{part}.txt").write_text(text)
    checksums = {part: hashlib.md5(text.encode()).hexdigest() for part, text in TEXTS.items()}
    monkeypatch.setattr(penntreebank, "MD5", checksums)
    ours = {f"ptb.{part}.txt": ("", checksum) for part, checksum in checksums.items()}
    monkeypatch.setattr(data, "FILES", ours)
    return tmp_path


@with_torchtext
def test_both_readers_give_the_same_words(official: Path) -> None:
    own, theirs = (
        data.read(replace(TEXT, text="official", reader=reader), official)
        for reader in ("own", "torchtext")
    )
    assert own == theirs
    assert own.test == ["the", "zebra", "of", "N", "<eos>"]


@with_torchtext
@pytest.mark.parametrize("largest", [5, 100])
@pytest.mark.parametrize("minimum_count", [1, 2])
def test_both_vocabularies_give_the_same_numbers(largest: int, minimum_count: int) -> None:
    words = [word for line in TEXTS["train"].split("\n") for word in (*line.split(), "<eos>")]
    own, theirs = (
        data.vocabulary(words, minimum_count, largest, reader) for reader in ("own", "torchtext")
    )
    assert own == theirs
    assert own[:4] == ["<eos>", "<unk>", "the", "N"]


@pytest.mark.skipif(INSTALLED, reason="torchtext is here")
def test_without_torchtext_one_line_says_where_it_is(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    request = "run --task ptb --pruner dense --profile smoke --set reader=torchtext --results"
    assert main([*request.split(), str(tmp_path)]) == 2
    message = capsys.readouterr().err.strip().splitlines()[-1]
    assert "tox -e torchtext" in message
