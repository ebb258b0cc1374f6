"""The English prose of CPython's own documentation, in the form of the Penn Treebank.

Every Python comes with `pydoc_data.topics`, the text of ``help("for")``. Its prose is separated
from code, grammar and tables, and written like Mikolov's Penn Treebank: one sentence a line, lower
case, no punctuation, numbers as ``N``, and anything that is not a word as ``<unk>``.
"""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Mapping
from pydoc_data.topics import topics

Paragraph = tuple[str, ...]
"""Sentences; the words of a sentence are separated by one space."""

SHARES: Mapping[str, float] = {"train": 0.8, "validation": 0.1, "test": 0.1}
"""The share of the words in each split."""

_ITEM = r"(?:\*|\d+\.|\[\d+\])\s+"
_BLOCK_END = re.compile(rf"\n\s*\n|\n(?=\s*{_ITEM})")
# A line above a more deeply indented one, which defines the term.
_DEFINED_TERM = re.compile(r"^( *)(?![*\d\[ ]).+\n(?=\1 +\S)")
_PARAGRAPH = re.compile(r"[A-Z*“(].*[.:;?!)”—]")
_SENTENCE_END = re.compile(r"(?<=[.?!])(?<!\.g\.)(?<!i\.e\.)[)\u2019\u201d]*\s+(?=[^a-z\s])")
_LITERAL = re.compile(r'"([^"]*)"')
_IDENTIFIERS = re.compile(r"[\w.]+( [\w.]+)*")
_CLITIC = re.compile(r"(?<=[a-z])(n't|'(?:d|ll|m|re|s|ve))\b")
_WORD = re.compile(r"<unk>|(?:n't|'[a-z]+)(?= |$)|\w+(?:[-./]\w+)*")
_NUMBER = re.compile(r"\d+(?:[-./]\d+)*")


@functools.cache
def splits() -> dict[str, list[str]]:
    """Return the sentences of each split.

    The documentation repeats itself: whole topics are parts of others. Only the first occurrence
    of a paragraph is kept, so that no paragraph is in two splits. Topics are assigned as a whole,
    in a shuffled but fixed order, each to the split that lacks most words.
    """
    order = sorted(topics, key=lambda name: hashlib.sha256(name.encode()).digest())
    texts = _without_repetitions([paragraphs(topics[name]) for name in order])
    total = sum(map(_words, texts))
    lacking = {split: share * total for split, share in SHARES.items()}
    result: dict[str, list[str]] = {split: [] for split in SHARES}
    for text in texts:
        split = max(lacking, key=lacking.__getitem__)
        lacking[split] -= _words(text)
        result[split] += [sentence for paragraph in text for sentence in paragraph]
    return result


def paragraphs(topic: str) -> list[Paragraph]:
    """Return the prose of a topic, without headings, code, grammar and tables."""
    found = []
    for block in map(_joined, _BLOCK_END.split(topic)):
        text = re.sub(rf"^{_ITEM}", "", block)
        if _is_prose(text, is_item=text != block):
            found.append(tuple(filter(None, map(tokenised, _SENTENCE_END.split(text)))))
    return found


def tokenised(sentence: str) -> str:
    """Return a sentence in the form of the Penn Treebank.

    Code in quotation marks counts as a noun: an identifier is one word, anything else ``<unk>``.
    """
    text = _LITERAL.sub(lambda literal: f" {_noun(literal[1])} ", sentence)
    text = _CLITIC.sub(r" \1", text.lower().replace("\u2019", "'"))
    return " ".join("N" if _NUMBER.fullmatch(word) else word for word in _WORD.findall(text))


def _without_repetitions(texts: list[list[Paragraph]]) -> list[list[Paragraph]]:
    seen: set[Paragraph] = set()
    result = []
    for text in texts:
        result.append([p for p in dict.fromkeys(text) if p not in seen])
        seen.update(text)
    return result


def _words(text: list[Paragraph]) -> int:
    return sum(len(sentence.split()) for paragraph in text for sentence in paragraph)


def _joined(block: str) -> str:
    """Return a block as one line, without footnote marks and the term that it defines.

    Words that were broken at a hyphen are joined.
    """
    text = re.sub(r"(?<=\w-)\n\s*(?=\w)", "", _DEFINED_TERM.sub("", block))
    return " ".join(re.sub(r"\[\d+\]", "", text).split())


def _is_prose(text: str, is_item: bool) -> bool:
    """Return whether a block is a paragraph or an item of a list, and not code or a heading."""
    outside_quotes = _LITERAL.sub("Literal", text)
    return (
        len(outside_quotes.split()) >= 4
        and " = " not in outside_quotes
        and (is_item or bool(_PARAGRAPH.fullmatch(outside_quotes)))
    )


def _noun(literal: str) -> str:
    name = literal.removesuffix("()")
    return name if _IDENTIFIERS.fullmatch(name) else "<unk>"
