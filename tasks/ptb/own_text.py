"""A user's own text, a file or a folder of files, or generated sentences without one."""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import chain
from pathlib import Path
from typing import TypeVar

from harness.data.description import DataDescription, Source, listed, located
from harness.errors import RequestError, nearest
from tasks.ptb.data import Corpus, read_lines, words_of
from tasks.ptb.settings import OwnTextSettings

Piece = TypeVar("Piece")

PART_FILES = ("train.txt", "valid.txt", "test.txt")

HELD_OUT = 10
"""One line or file out of so many is for validation, and as many are for the test."""

SENTENCES = 1500
"""Generated ones."""


def describe(profile: str, settings: OwnTextSettings, data_folder: Path) -> DataDescription:
    """Describe the text.

    Raises:
        RequestError: as for `read`.
    """
    return read(settings, data_folder).description()


def read(settings: OwnTextSettings, data_folder: Path) -> Corpus:
    """Return the text that the setting ``text`` names.

    A folder with the files ``train.txt``, ``valid.txt`` and ``test.txt`` has its parts. The other
    files of a folder are divided in a random order; of a folder of few files, or of a single file,
    the last lines are for validation and test. At most ``words`` words of each part are used.

    Raises:
        RequestError: there is no such text, or a file is empty, too short or not UTF-8.
    """
    source: Source = "real"
    if settings.text == "generated":
        source, name = "synthetic", "generated sentences; split by line"
        parts = _by_line(_generated(), "the generated text")
    else:
        place = located(settings.text, data_folder)
        if place is None:
            raise RequestError(
                f"text: text={settings.text} is neither a file nor a folder, here or in "
                f"{data_folder}{nearest(settings.text, ['generated'])}"
            )
        parts, division = _divided(place, settings.split_seed)
        name = f"text of {place.resolve().name}; {division}"
    limit = settings.words or None
    train, validation, test = (words_of(part)[:limit] for part in parts)
    return Corpus(source, name, train, validation, test)


def _divided(place: Path, seed: int) -> tuple[list[list[str]], str]:
    """Return the lines of training, validation and test, and how they were divided, in words."""
    if place.is_file():
        return _by_line(read_lines(place), str(place)), "split by line"
    if all((place / name).is_file() for name in PART_FILES):
        return [read_lines(place / name) for name in PART_FILES], f"files {', '.join(PART_FILES)}"
    files = listed(place, "**/*.txt")
    if not files:
        raise RequestError(f"text: text={place} has no files that end in .txt")
    texts = [read_lines(path) for path in files]
    if len(texts) < HELD_OUT:
        return _by_line(list(chain.from_iterable(texts)), str(place)), "split by line"
    random.Random(seed).shuffle(texts)
    parts = [list(chain.from_iterable(part)) for part in _cut(texts)]
    return parts, f"split by file with seed {seed}"


def _by_line(lines: Sequence[str], what: str) -> list[list[str]]:
    if len(lines) < HELD_OUT:
        raise RequestError(
            f"text: {what} has too few lines, {len(lines)}; at least {HELD_OUT} are needed, each a "
            "sentence"
        )
    return [list(part) for part in _cut(lines)]


def _cut(pieces: Sequence[Piece]) -> tuple[Sequence[Piece], ...]:
    """Return the pieces of training, validation and test, in their order."""
    held_out = len(pieces) // HELD_OUT
    train = len(pieces) - 2 * held_out
    return pieces[:train], pieces[train : train + held_out], pieces[train + held_out :]


def _generated() -> list[str]:
    """Return sentences whose verbs agree with their subjects, and objects with their verbs."""
    draw = random.Random(0)
    things = {"reads": ("book", "letter", "map"), "drinks": ("tea", "water", "milk")}
    things |= {"climbs": ("tree", "hill", "wall"), "mends": ("roof", "chair", "net")}
    people, looks = ("child", "sailor", "teacher", "farmer"), ("old", "young", "tall", "quiet")
    lines = []
    for _ in range(SENTENCES):
        verb = draw.choice(list(things))
        several = draw.random() < 0.5
        subject = f"{draw.choice(looks)} {draw.choice(people)}"
        if several:
            subject, spoken = f"{subject}s", verb.removesuffix("s")
        else:
            subject, spoken = f"a {subject}", verb
        lines.append(f"{subject} {spoken} the {draw.choice(things[verb])}")
    return lines
