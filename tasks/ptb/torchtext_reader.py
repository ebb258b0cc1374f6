"""The Penn Treebank and the vocabulary, read by torchtext (``--set reader=torchtext``).

torchtext is archived and does not load with a current torch. The extra ``torchtext`` installs it
with the last torch that it supports. Words and numbers are the same as those of the task's own
reader.
"""

from __future__ import annotations

import tempfile
import warnings
from collections.abc import Iterable, Sequence
from pathlib import Path

from harness.errors import RequestError

try:
    import torchtext

    torchtext.disable_torchtext_deprecation_warning()
    from torchtext.datasets import PennTreebank
    from torchtext.vocab import build_vocab_from_iterator
except (ImportError, OSError) as error:  # OSError: its library lacks a symbol of another torch
    raise RequestError(
        "ptb: reader=torchtext needs torchtext, which does not load here "
        f"({type(error).__name__}); use the environment of tox -e torchtext, or reader=own"
    ) from error


def official(folder: Path) -> list[list[str]]:
    """Return the lines of the three official files in ``folder``."""
    with tempfile.TemporaryDirectory() as root, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchdata warns that it is archived
        expected = Path(root, "datasets", PennTreebank.__name__)
        expected.mkdir(parents=True)
        for file in folder.resolve().glob("ptb.*.txt"):
            (expected / file.name).symlink_to(file)
        return [list(PennTreebank(root, split=part)) for part in ("train", "valid", "test")]


def vocabulary(
    words: Iterable[str], minimum_count: int, largest: int, special: Sequence[str]
) -> list[str]:
    """Return the special words, then the others, the most frequent first.

    torchtext counts special words in the text towards the size, so they are removed first.

    Args:
        words: the training part.
        minimum_count: how often a word must occur.
        largest: size of the vocabulary, special words included.
        special: the words that come first.
    """
    others = ([word] for word in words if word not in special)
    built = build_vocab_from_iterator(
        others, min_freq=minimum_count, specials=list(special), max_tokens=largest
    )
    return list(built.get_itos())
