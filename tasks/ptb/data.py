"""The texts of this task as sequences of words, and their vocabulary."""

from __future__ import annotations

import codecs
import hashlib
import platform
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from harness.data.description import DataDescription, Source
from harness.data.official import identify
from harness.errors import RequestError, nearest
from tasks.ptb import documentation
from tasks.ptb.settings import FILES, PUBLISHED_WORDS, TextSettings

END_OF_SENTENCE = "<eos>"
UNKNOWN = "<unk>"

BYTE_ORDER_MARK = "\ufeff"
"""Some editors begin a text in UTF-8 with it."""


@dataclass(frozen=True)
class Corpus:
    """The three parts of a text. Each line is followed by one end of sentence."""

    source: Source
    name: str
    train: Sequence[str]
    validation: Sequence[str]
    test: Sequence[str]
    stands_in_for: str | None = None
    reader: str = "own"
    """The reader of the vocabulary; see `vocabulary`."""

    def description(self) -> DataDescription:
        """Describe the text.

        The fingerprint is that of the words of all three parts. Unofficial files may have the same
        words as the official ones, and still have another fingerprint.
        """
        parts = [" ".join(part) for part in (self.train, self.validation, self.test)]
        marked = [self.source, *parts] if self.source == "unofficial" else parts
        fingerprint = hashlib.sha256("\n".join(marked).encode()).hexdigest()
        return DataDescription(self.source, self.name, fingerprint, self.stands_in_for)


def describe(profile: str, settings: TextSettings, data_folder: Path) -> DataDescription:
    """Describe the data.

    Raises:
        RequestError: as for `read`.
    """
    return read(settings, data_folder).description()


def read(settings: TextSettings, data_folder: Path) -> Corpus:
    """Return the text that the setting ``text`` names.

    ``documentation`` is that of CPython. ``official`` is the Penn Treebank, whose files belong
    into the folder ``ptb`` of the data folder. Any other value is a folder with the files
    ``train.txt``, ``valid.txt`` and ``test.txt``. At most ``words`` words of each part are used,
    or all if that is 0.

    Raises:
        RequestError: a file is missing, empty, not UTF-8, or differs from the official one and is
            not accepted, or an unofficial text is not complete.
    """
    text, limit = settings.text, settings.words or None
    source: Source = "real"
    stands_in_for = None
    if text == "documentation":
        stands_in_for = "Penn Treebank"
        version = ".".join(platform.python_version_tuple()[:2])
        name = f"CPython documentation (pydoc_data.topics, Python {version}); not PTB"
        parts = [words_of(lines) for lines in documentation.splits().values()]
    elif text == "official":
        checksums = {name: checksum for name, (_, checksum) in FILES.items()}
        source, _ = identify(data_folder / "ptb", checksums, "ptb", settings.accept)
        other = "" if source == "official" else ", other files"
        name = f"Penn Treebank (Mikolov){other}"
        if other and settings.reader == "torchtext":
            raise RequestError("ptb: reader=torchtext only reads the published files")
        parts = _official(data_folder / "ptb", settings.reader)
        if source == "unofficial":
            _require_complete(data_folder / "ptb", parts)
    else:
        if not Path(text).is_dir():
            raise RequestError(
                f"ptb: text={text} is not a folder{nearest(text, ('documentation', 'official'))}"
            )
        name = f"text of {Path(text).resolve().name}"
        parts = [
            words_of(read_lines(Path(text) / f"{part}.txt")) for part in ("train", "valid", "test")
        ]
    train, validation, test = (part[:limit] for part in parts)
    return Corpus(source, name, train, validation, test, stands_in_for, settings.reader)


def vocabulary(
    words: Iterable[str], minimum_count: int, largest: int, reader: str = "own"
) -> list[str]:
    """Return the words of a training part, the most frequent first.

    Args:
        words: the training part only; words of other parts must stay unknown.
        minimum_count: how often a word must occur.
        largest: size of the vocabulary, including the end of sentence and the unknown word.
        reader: ``own``, or ``torchtext`` for its `build_vocab_from_iterator`, with equal results.

    Raises:
        RequestError: the vocabulary has no room for a word.
    """
    special = (END_OF_SENTENCE, UNKNOWN)
    if largest <= len(special):
        raise RequestError(
            f"vocabulary={largest} has no room for words besides {' and '.join(special)}"
        )
    if reader == "torchtext":
        from tasks.ptb import torchtext_reader

        return torchtext_reader.vocabulary(words, minimum_count, largest, special)
    counts = Counter(words)
    frequent = [w for w, n in counts.items() if n >= minimum_count and w not in special]
    frequent.sort(key=lambda word: (-counts[word], word))
    return [*special, *frequent[: largest - len(special)]]


def _official(folder: Path, reader: str) -> list[list[str]]:
    parts = [read_lines(folder / name) for name in FILES]
    if reader == "torchtext":
        from tasks.ptb import torchtext_reader

        parts = torchtext_reader.official(folder)
    return [words_of(lines) for lines in parts]


def _require_complete(folder: Path, parts: Sequence[Sequence[str]]) -> None:
    for name, part, count in zip(FILES, parts, PUBLISHED_WORDS, strict=True):
        if len(part) != count:
            raise RequestError(
                f"ptb: {folder / name} has {len(part):,} words, not {count:,}: "
                "the text is not complete"
            )


def read_lines(path: Path) -> list[str]:
    """Return the lines of a text with the line ends of any system.

    Raises:
        RequestError: it cannot be read, is empty or is not UTF-8.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise RequestError(f"cannot read {path}: {error.strerror}") from None
    if content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
        raise RequestError(f"{path} is UTF-16 or UTF-32; save it as UTF-8")
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RequestError(
            f"{path} is not UTF-8 at byte {error.start}, "
            f"which is 0x{content[error.start]:02x}; save it as UTF-8"
        ) from None
    if (place := text.find("\0")) >= 0:
        raise RequestError(f"{path} has a NUL character at {place}; save it as plain UTF-8")
    # Joined files have byte-order marks within the text, too.
    text = text.replace(BYTE_ORDER_MARK, "").replace("\r\n", "\n").replace("\r", "\n")
    if not text.strip():
        raise RequestError(f"{path} is empty")
    return text.removesuffix("\n").split("\n")


def words_of(lines: Iterable[str]) -> list[str]:
    """Return the words of lines, each line followed by an end of sentence."""
    return [word for line in lines for word in (*line.split(), END_OF_SENTENCE)]
