"""The texts of this task as sequences of words, and the vocabulary of their training part."""

from __future__ import annotations

import codecs
import hashlib
import platform
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.data.description import DataDescription, Source
from harness.data.download import require_checksum
from harness.errors import RequestError, nearest
from tasks.ptb import documentation

END_OF_SENTENCE = "<eos>"
UNKNOWN = "<unk>"

BYTE_ORDER_MARK = "\ufeff"
"""With which some editors begin a text in UTF-8."""

OFFICIAL_MD5: Mapping[str, str] = {
    "ptb.train.txt": "f26c4b92c5fdc7b3f8c7cdcb991d8420",
    "ptb.valid.txt": "aa0affc06ff7c36e977d7cd49e3839bf",
    "ptb.test.txt": "8b80168b89c18661a38ef683c0dc3721",
}
"""Mikolov's Penn Treebank: 929,589, 73,760 and 82,430 words, the ends of sentences included."""


@dataclass(frozen=True)
class Corpus:
    """The three parts of a text. Each line is followed by one end of sentence."""

    source: Source
    name: str
    train: Sequence[str]
    validation: Sequence[str]
    test: Sequence[str]
    stands_in_for: str | None = None

    def description(self) -> DataDescription:
        """Return what the text is; its fingerprint is that of the words of all three parts."""
        parts = (" ".join(part) for part in (self.train, self.validation, self.test))
        fingerprint = hashlib.sha256("\n".join(parts).encode()).hexdigest()
        return DataDescription(self.source, self.name, fingerprint, self.stands_in_for)


def describe(profile: str, settings: Mapping[str, Any], data_folder: Path) -> DataDescription:
    """Return what the data are.

    Raises:
        RequestError: as `read`.
    """
    return read(settings, data_folder).description()


def read(settings: Mapping[str, Any], data_folder: Path) -> Corpus:
    """Return the text that the setting ``text`` asks for.

    It is ``documentation`` for that of CPython, ``official`` for the Penn Treebank, whose files
    are expected in the folder ``ptb`` of the data folder, or else a folder with the files
    ``train.txt``, ``valid.txt`` and ``test.txt``. Of each part at most ``words`` are used, or all
    where that is 0.

    Raises:
        RequestError: a file is missing, empty, not UTF-8 or not the official one.
    """
    text, limit = settings["text"], settings["words"] or None
    source: Source = "real"
    stands_in_for = None
    if text == "documentation":
        stands_in_for = "Penn Treebank"
        version = ".".join(platform.python_version_tuple()[:2])
        name = f"CPython documentation (pydoc_data.topics, Python {version}); not PTB"
        parts = [_words(lines) for lines in documentation.splits().values()]
    elif text == "official":
        source, name = "official", "Penn Treebank (Mikolov)"
        parts = _official(data_folder / "ptb", settings["reader"])
    else:
        if not Path(text).is_dir():
            raise RequestError(
                f"ptb: text={text}: is no folder{nearest(text, ('documentation', 'official'))}"
            )
        name = f"text of {Path(text).resolve().name}"
        parts = [_words(_lines(Path(text) / f"{part}.txt")) for part in ("train", "valid", "test")]
    train, validation, test = (part[:limit] for part in parts)
    return Corpus(source, name, train, validation, test, stands_in_for)


def vocabulary(
    words: Iterable[str], minimum_count: int, largest: int, reader: str = "own"
) -> list[str]:
    """Return the words of a training part, the most frequent first.

    Args:
        words: the training part; words of other parts must stay unknown.
        minimum_count: how often a word must be seen.
        largest: size of the vocabulary, of which two are the end of a sentence and the unknown.
        reader: ``own``, or ``torchtext`` for its `build_vocab_from_iterator`: the same words.

    Raises:
        RequestError: there is no room for a word.
    """
    special = (END_OF_SENTENCE, UNKNOWN)
    if largest <= len(special):
        raise RequestError(
            f"ptb: vocabulary={largest}: has no room for words beside {' and '.join(special)}"
        )
    if reader == "torchtext":
        from tasks.ptb import torchtext_reader

        return torchtext_reader.vocabulary(words, minimum_count, largest, special)
    counts = Counter(words)
    frequent = [w for w, n in counts.items() if n >= minimum_count and w not in special]
    frequent.sort(key=lambda word: (-counts[word], word))
    return [*special, *frequent[: largest - len(special)]]


def _official(folder: Path, reader: str) -> list[list[str]]:
    for name, md5 in OFFICIAL_MD5.items():
        require_checksum(folder / name, md5, "ptb")
    parts = [_lines(folder / name) for name in OFFICIAL_MD5]
    if reader == "torchtext":
        from tasks.ptb import torchtext_reader

        parts = torchtext_reader.official(folder)
    return [_words(lines) for lines in parts]


def _lines(path: Path) -> list[str]:
    """Return the lines of a text, whichever system's editor wrote it."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RequestError(f"ptb: cannot read {path}: {error.strerror}") from None
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise RequestError(f"ptb: {path} is UTF-16 or UTF-32; save it as UTF-8")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(
            f"ptb: {path} is not UTF-8 at byte {error.start}, "
            f"which is 0x{content[error.start]:02x}; save it as UTF-8"
        ) from None
    if (place := text.find("\0")) >= 0:
        raise RequestError(f"ptb: {path} has a NUL at character {place}; save it as plain UTF-8")
    # A mark stands at the beginning of a file, and within one that was joined from several.
    text = text.replace(BYTE_ORDER_MARK, "").replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise RequestError(f"ptb: {path} is empty")
    return text.removesuffix("\n").split("\n")


def _words(lines: Iterable[str]) -> list[str]:
    return [word for line in lines for word in (*line.split(), END_OF_SENTENCE)]
