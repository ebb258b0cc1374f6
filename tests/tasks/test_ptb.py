"""The texts, the protocol of evaluation and the recipe of the language-modelling task."""

from __future__ import annotations

import hashlib
import json
import math
import subprocess
import sys
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import chain, repeat
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from harness.data.description import DataDescription
from harness.errors import RequestError
from harness.prunable import prunable_weights
from harness.registry import Registry
from harness.results.records import new_record
from harness.scoring import magnitudes
from harness.spec import plan
from harness.task import Split
from tasks.ptb import data, documentation
from tasks.ptb.logits import LogitsModel
from tasks.ptb.model import PSMM, State
from tasks.ptb.settings import PROFILES, TEXT
from tasks.ptb.task import PennTreebank

EOS, UNK = data.END_OF_SENTENCE, data.UNKNOWN
CPU = torch.device("cpu")

MakeTask = Callable[..., PennTreebank]


@pytest.fixture
def text(tmp_path: Path) -> Path:
    """A folder with a text of three words, and a fourth that training never sees."""
    folder = tmp_path / "letters"
    folder.mkdir()
    (folder / "train.txt").write_text("a b a c\nb a\n" * 10)
    (folder / "valid.txt").write_text("a b\nc a b a\n")
    (folder / "test.txt").write_text("b a zebra\nc a a b\n")
    return folder


@pytest.fixture
def make_task(text: Path) -> MakeTask:
    """Return a builder of the task on that text; settings by keyword."""
    letters = replace(TEXT, text=str(text), window=5, hidden=6, minimum_count=1)

    def build(**changes: Any) -> PennTreebank:
        return PennTreebank(replace(letters, **changes), text, CPU)

    return build


# What is read


def test_each_line_ends_in_one_end_of_sentence(text: Path) -> None:
    corpus = data.read(replace(TEXT, text=str(text)), text)
    assert list(corpus.validation) == ["a", "b", EOS, "c", "a", "b", "a", EOS]
    assert (corpus.source, corpus.name) == ("real", "text of letters")


def test_the_last_line_may_lack_its_line_end_and_lines_may_end_as_in_windows(text: Path) -> None:
    (text / "test.txt").write_bytes(b"b a\r\nc")
    corpus = data.read(replace(TEXT, text=str(text)), text)
    assert list(corpus.test) == ["b", "a", EOS, "c", EOS]


@pytest.mark.parametrize(
    "written",
    [
        b"\xef\xbb\xbfb a\nc\n",
        b"\xef\xbb\xbfb a\r\nc\r\n",
        b"b a\n\xef\xbb\xbfc\n",  # two files, joined
        b"b a\rc\r",
        b"\tb\ta \n\fc\n",
    ],
    ids=["mark", "mark and CRLF", "mark within", "CR", "tabs and form feed"],
)
def test_words_are_the_same_whichever_editor_wrote_them(text: Path, written: bytes) -> None:
    (text / "train.txt").write_bytes(written)
    corpus = data.read(replace(TEXT, text=str(text)), text)
    assert list(corpus.train) == ["b", "a", EOS, "c", EOS]


def test_a_part_that_is_a_folder_is_refused(text: Path) -> None:
    (text / "train.txt").unlink()
    (text / "train.txt").mkdir()
    with pytest.raises(RequestError, match=r"cannot read .*train\.txt: Is a directory"):
        data.read(replace(TEXT, text=str(text)), text)


def test_a_text_may_lie_behind_a_link_with_spaces_and_umlauts(text: Path, tmp_path: Path) -> None:
    link = tmp_path / "Größte Texte"
    link.symlink_to(text)
    read = [data.read(replace(TEXT, text=str(folder)), tmp_path) for folder in (text, link)]
    assert read[0].description().sha256 == read[1].description().sha256


def test_the_setting_words_cuts_each_part(text: Path) -> None:
    corpus = data.read(replace(TEXT, text=str(text), words=3), text)
    assert [corpus.train, corpus.validation, corpus.test] == [
        ["a", "b", "a"],
        ["a", "b", EOS],
        ["b", "a", "zebra"],
    ]


def test_the_vocabulary_comes_from_the_training_part_and_has_the_frequent_words_first() -> None:
    words = ["a", "b", "b", EOS, "c", "c", "c", "d", EOS]
    assert data.vocabulary(words, 1, 100) == [EOS, UNK, "c", "b", "a", "d"]
    assert data.vocabulary(words, 2, 100) == [EOS, UNK, "c", "b"]
    assert data.vocabulary(words, 1, 4) == [EOS, UNK, "c", "b"]


def test_words_of_the_test_part_only_are_unknown(make_task: MakeTask) -> None:
    task = make_task()
    assert "zebra" not in task.vocabulary
    words = [
        task.vocabulary[n] for _, targets in task.evaluation_windows("test") for n in targets[0]
    ]
    assert words == ["b", "a", UNK, EOS, "c", "a", "a", "b", EOS]


def test_the_fingerprint_is_that_of_the_words_in_their_parts(text: Path) -> None:
    def fingerprint() -> str:
        return data.describe("embedded", replace(TEXT, text=str(text)), text).sha256

    original = fingerprint()
    (text / "test.txt").write_text("b  a zebra \nc a a b")
    assert fingerprint() == original, "spaces are no words"
    (text / "test.txt").write_text("b a zebra c\na a b\n")
    assert fingerprint() != original, "an end of sentence is one"


# What is refused


@pytest.mark.parametrize("part", ["train", "valid", "test"])
@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        (None, "No such file"),
        (b"", "is empty"),
        (b" \n\n", "is empty"),
        (b"\xef\xbb\xbf\r\n", "is empty"),
        (b"caf\xe9\n", "is not UTF-8 at byte 3, which is 0xe9; save it as UTF-8"),
        ("a b\n".encode("utf-16"), "is UTF-16 or UTF-32; save it as UTF-8"),
        ("a b\n".encode("utf-32"), "is UTF-16 or UTF-32; save it as UTF-8"),
        ("a b\n".encode("utf-16-le"), "has a NUL character at 1"),
        (bytes(12), "has a NUL character at 0"),
    ],
)
def test_a_bad_file_is_refused_in_one_line(
    text: Path, part: str, content: bytes | None, complaint: str
) -> None:
    file = text / f"{part}.txt"
    file.unlink() if content is None else file.write_bytes(content)
    with pytest.raises(RequestError, match=complaint) as refusal:
        data.describe("embedded", replace(TEXT, text=str(text)), text)
    assert str(file) in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_a_text_that_is_no_folder_is_refused_with_the_nearest_name(tmp_path: Path) -> None:
    complaint = "text=documentatoin is not a folder; did you mean 'documentation'"
    with pytest.raises(RequestError, match=complaint):
        data.read(replace(TEXT, text="documentatoin"), tmp_path)


def test_a_record_names_the_text_and_not_the_folder_where_it_lies(text: Path) -> None:
    wanted = plan(Registry(), "ptb", "dense", overrides={"text": str(text)})
    assert wanted.settings["text"] == str(text)
    said = new_record(wanted, "done", None)
    assert said["settings"]["text"] == "letters"
    assert str(text.parent) not in json.dumps(said)


def test_a_text_that_is_shorter_than_a_window_is_refused(make_task: MakeTask) -> None:
    with pytest.raises(RequestError, match=r"window=9 does not fit.* at most the 8 of"):
        make_task(window=9)
    with pytest.raises(RequestError, match="at least 2 words"):
        make_task(window=1)


def test_a_vocabulary_without_room_for_words_is_refused() -> None:
    with pytest.raises(RequestError, match="vocabulary=2 has no room for words besides <eos> and"):
        data.vocabulary(["a", EOS], 1, 2)


# The official files


@pytest.fixture
def official(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A data folder with three files that, for once, count as the official ones."""
    folder = tmp_path / "ptb"
    folder.mkdir()
    checksums = {}
    for part in ("train", "valid", "test"):
        content = f" the {part} part \n of N words \n".encode()
        (folder / f"ptb.{part}.txt").write_bytes(content)
        checksums[f"ptb.{part}.txt"] = hashlib.md5(content).hexdigest()
    monkeypatch.setattr(data, "FILES", {name: ("", md5) for name, md5 in checksums.items()})
    return tmp_path


def describe_official(data_folder: Path) -> DataDescription:
    return data.describe("paper", replace(TEXT, text="official"), data_folder)


def test_the_official_files_are_recognised_by_their_checksums(official: Path) -> None:
    assert describe_official(official).source == "official"
    corpus = data.read(replace(TEXT, text="official"), official)
    assert list(corpus.test) == ["the", "test", "part", EOS, "of", "N", "words", EOS]


@pytest.mark.parametrize("content", [b" the valid part \n of N wor", b" another text \n"])
def test_truncated_or_other_official_files_are_refused(official: Path, content: bytes) -> None:
    file = official / "ptb" / "ptb.valid.txt"
    file.write_bytes(content)
    with pytest.raises(RequestError, match="is truncated or changed: its MD5 is") as refusal:
        describe_official(official)
    assert str(file) in str(refusal.value)


def test_a_text_with_other_line_ends_is_unofficial(
    official: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_published = describe_official(official)
    file = official / "ptb" / "ptb.valid.txt"
    file.write_bytes(file.read_bytes().replace(b"\n", b"\r\n"))
    accepted = replace(TEXT, text="official", accept="unofficial")
    with pytest.raises(RequestError, match=r"train\.txt has 8 words, not 929,589: the text is not"):
        data.read(accepted, official)
    monkeypatch.setattr(data, "PUBLISHED_WORDS", (8, 8, 8))
    corpus = data.read(accepted, official)
    assert (corpus.source, corpus.name) == ("unofficial", "Penn Treebank (Mikolov), other files")
    assert list(corpus.validation) == ["the", "valid", "part", EOS, "of", "N", "words", EOS]
    assert corpus.description().sha256 != as_published.sha256


def test_a_missing_official_file_is_refused_with_the_place_where_it_belongs(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="No such file") as refusal:
        describe_official(tmp_path)
    hint = f"or copy ptb.train.txt into {tmp_path / 'ptb'}"
    assert hint in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_the_paper_profile_asks_for_the_official_files_and_the_embedded_one_for_none() -> None:
    assert PROFILES["paper"].text == "official"
    assert PROFILES["embedded"].text == "documentation"


# The documentation


@pytest.mark.parametrize(
    ("sentence", "written"),
    [
        ("The Object's 3 items, e.g. x/y.", "the object 's N items e.g x/y"),
        ("It doesn't accept 3.14 or 0x1F.", "it does n't accept N or 0x1f"),
        ('Call "str.format()", not "{0}!".', "call str.format not <unk>"),
        ('An "async for", in *two*: **PEP 492**', "an async for in two pep N"),
        ("In Python 3.x (2001-2024) it\u2019s so", "in python 3.x N it 's so"),
    ],
)
def test_sentences_are_written_like_the_penn_treebank(sentence: str, written: str) -> None:
    assert documentation.tokenised(sentence) == written


def test_prose_is_told_from_headings_grammar_code_and_tables() -> None:
    topic = """
The "while" statement
*********************

The "while" statement is used for repeated execution [1] as long as an
expres-
sion is true.  It ends with "break" or not:

The formal syntax:

   while_stmt ::= "while" assignment_expression ":" suite

   >>> while the_list is not empty: it.pop()

   VALUE = EXPRESSION
   if not VALUE: a_function(of_the, arguments)

   def a_function(of_the, arguments):
       return of_the

+----------+-----------------------+
| The head | of the table          |
+----------+-----------------------+

* first item of a list
* 2. the second one, which
  is longer

a term
   This is what the term means.
"""
    assert documentation.paragraphs(topic) == [
        (
            "the while statement is used for repeated execution as long as an expres-sion is true",
            "it ends with break or not",
        ),
        ("first item of a list",),
        ("N the second one which is longer",),
        ("this is what the term means",),
    ]


def test_no_sentence_of_the_documentation_is_in_two_parts() -> None:
    """Longer ones, that is: ``for example`` begins many an example."""
    train, validation, test = (
        {line for line in lines if len(line.split()) > 5}
        for lines in documentation.splits().values()
    )
    assert min(len(train), len(validation), len(test)) > 100
    assert not train & validation
    assert not train & test
    assert not validation & test


def test_a_topic_is_in_one_part_and_a_repeated_paragraph_is_read_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    topics = {
        f"topic{n}": f"This is the topic {chr(97 + n) * 3}.\n\nAll of them say this.\n"
        for n in range(9)
    }
    topics["topic4"] += "\nThis is the topic aaa.\n\nThis is the topic eee.\n"
    monkeypatch.setattr(documentation, "topics", topics)
    documentation.splits.cache_clear()
    try:
        parts = documentation.splits()
    finally:
        documentation.splits.cache_clear()
    lines = [line for part in parts.values() for line in part]
    assert len(lines) == len(set(lines)) == 10
    assert [len(part) for part in parts.values()] == [8, 1, 1]


def test_the_documentation_is_divided_by_words_80_10_10() -> None:
    corpus = data.read(TEXT, Path())
    parts = (corpus.train, corpus.validation, corpus.test)
    total = sum(map(len, parts))
    assert total > 30_000
    shares = [len(part) / total for part in parts]
    assert shares == pytest.approx([0.8, 0.1, 0.1], abs=0.05)
    assert corpus.source == "real"
    assert "not PTB" in corpus.name


def test_describing_the_data_does_not_import_torch() -> None:
    program = """
import sys
from pathlib import Path
from tasks.ptb.data import describe
from tasks.ptb.settings import TEXT
print(describe("embedded", TEXT, Path()).sha256)
assert "torch" not in sys.modules and "numpy" not in sys.modules
"""
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    )
    assert len(result.stdout.strip()) == 64


# Training windows


def test_every_training_word_is_predicted_once_from_the_word_before(make_task: MakeTask) -> None:
    task = make_task(window=6)
    tokens, targets = task.training_windows
    assert tokens.shape == targets.shape == (16, 5)
    corpus = [*"abac", EOS, *"ba", EOS] * 10
    assert [task.vocabulary[n] for n in targets.flatten()] == corpus
    assert [task.vocabulary[n] for n in tokens.flatten()] == [EOS, *corpus[:-1]]


def test_the_official_protocol_drops_what_is_between_windows(make_task: MakeTask) -> None:
    tokens, targets = make_task(window=6, protocol="official").training_windows
    assert tokens.shape == (80 // 6, 5)
    assert torch.equal(tokens[:, 1:], targets[:, :-1])


def test_an_epoch_shows_each_window_once(make_task: MakeTask) -> None:
    task = make_task(window=6, batch_size=5)
    model = task.model()
    stream = task.stream(model, seed=3)
    assert task.steps_per_epoch == stream.batches_per_epoch == 4
    batches = [torch.cat(stream.next(model), dim=1) for _ in range(task.steps_per_epoch)]
    windows = torch.cat(task.training_windows, dim=1)
    assert sorted(torch.cat(batches).tolist()) == sorted(windows.tolist())


def test_scoring_batches_are_five_of_the_recipes_size_and_depend_on_the_seed(
    make_task: MakeTask,
) -> None:
    task = make_task(batch_size=3)
    batches = task.scoring_batches(0)
    assert [tuple(tokens.shape) for tokens, _ in batches] == [(3, 4)] * 5
    again, other = task.scoring_batches(0), task.scoring_batches(1)
    assert all(torch.equal(a[0], b[0]) for a, b in zip(batches, again, strict=True))
    assert not all(torch.equal(a[0], b[0]) for a, b in zip(batches, other, strict=True))


def test_training_loss_and_scoring_loss_are_the_same_function(make_task: MakeTask) -> None:
    task = make_task()
    torch.manual_seed(0)
    model = task.model().double().eval()
    (batch, *_) = task.scoring_batches(0)
    torch.testing.assert_close(task.loss(model, batch), task.scoring_loss(model, batch))


# Evaluation


class Recorder(PSMM):
    """Gives all words of a window the same log-probability; notes what it is asked."""

    def __init__(self, log_probabilities: Iterable[float]) -> None:
        super().__init__(2, 2)
        self.log_probabilities = iter(log_probabilities)
        self.tokens: list[list[int]] = []
        self.targets: list[list[int]] = []
        self.states: list[float | None] = []

    def target_log_probabilities(
        self, tokens: Tensor, targets: Tensor, state: State | None = None
    ) -> tuple[Tensor, State]:
        self.tokens += tokens.tolist()
        self.targets += targets.tolist()
        self.states.append(None if state is None else float(state[0]))
        count = torch.tensor(float(len(self.states)))
        return torch.full(targets.shape, next(self.log_probabilities)), (count, count)


@pytest.mark.parametrize("split", ["validation", "test"])
def test_every_word_is_predicted_once_and_ignorance_costs_the_vocabulary(
    make_task: MakeTask, split: Split
) -> None:
    task = make_task(window=5)
    model = Recorder(repeat(-math.log(5)))
    assert task.evaluate(model, split)["perplexity"] == pytest.approx(5)
    end, unknown, a, b, c = range(5)
    words = {
        "validation": [a, b, end, c, a, b, a, end],
        "test": [b, a, unknown, end, c, a, a, b, end],
    }
    assert list(chain(*model.targets)) == words[split]
    assert list(chain(*model.tokens)) == [end, *words[split][:-1]]


def test_the_state_is_carried_from_window_to_window(make_task: MakeTask) -> None:
    model = Recorder(repeat(-1.0))
    make_task(window=5).evaluate(model, "test")
    assert model.states == [None, 1.0, 2.0]


def test_the_official_protocol_starts_each_window_anew(make_task: MakeTask) -> None:
    model = Recorder(repeat(-1.0))
    make_task(window=4, protocol="official", batch_size=1).evaluate(model, "test")
    end, unknown, a, b, c = range(5)
    assert model.tokens == [[b, a, unknown], [c, a, a]]
    assert model.targets == [[a, unknown, end], [a, a, b]]
    assert model.states == [None, None]


def test_perplexity_weighs_words_and_not_windows(make_task: MakeTask) -> None:
    """Of nine words, a window of 8 has seven, and two are left."""
    perplexity = make_task(window=8).evaluate(Recorder([-1.0, -10.0]), "test")["perplexity"]
    assert perplexity == pytest.approx(math.exp((7 * 1 + 2 * 10) / 9))


def test_a_diverged_model_has_an_infinite_perplexity(make_task: MakeTask) -> None:
    assert make_task().evaluate(Recorder(repeat(-1e6)), "test")["perplexity"] == math.inf


def test_without_the_pointer_the_window_does_not_matter(make_task: MakeTask) -> None:
    """A sentinel that always wins leaves an LSTM, whose carried state knows all that was read."""
    torch.manual_seed(0)
    model = make_task().model().double().eval()
    assert isinstance(model, PSMM)
    with torch.no_grad():
        model.lstm.weight_hh.mul_(3)
        model.query.weight.zero_()
        model.query.bias.fill_(5)
        model.sentinel.fill_(20)
        carried = [make_task(window=n).evaluate(model, "test")["perplexity"] for n in (2, 5, 8)]
        anew = make_task(window=4, protocol="official").evaluate(model, "test")["perplexity"]
    assert carried == pytest.approx([carried[0]] * 3, rel=1e-9)
    assert anew != pytest.approx(carried[0], rel=1e-3)


class Periodic(LogitsModel):
    """Knows that words repeat after four, and nothing else; notes what it reads.

    It is sure of a word if the one four places before is in its window, and else has no idea.
    """

    def __init__(self) -> None:
        super().__init__()
        self.read: list[list[int]] = []

    def flow(self) -> Tensor:
        raise NotImplementedError

    def logits(self, tokens: Tensor) -> Tensor:
        self.read += tokens.tolist()
        logits = torch.zeros(*tokens.shape, 5)
        logits[:, 3:] = 1e3 * one_hot(tokens[:, :-3], 5)
        return logits


@pytest.fixture
def periodic_text(text: Path) -> Path:
    """Replace the test part by 20 words, the last four of which are ``a b c <eos>``."""
    (text / "test.txt").write_text("a b c\n" * 5)
    return text


@pytest.mark.usefixtures("periodic_text")
def test_without_a_state_a_window_has_words_before_it_as_context(make_task: MakeTask) -> None:
    """Only the first three words of the text have no word four places before them.

    A window has 7 words, of which the first 3 are context: so the other 17 are all certain.
    """
    model = Periodic()
    perplexity = make_task(window=8).evaluate(model, "test")["perplexity"]
    assert perplexity == pytest.approx(5 ** (3 / 20))
    end, _, a, b, c = range(5)
    assert model.read == [[end, a, b, c], *[[a, b, c, end, a, b, c]] * 4]


@pytest.mark.usefixtures("periodic_text")
def test_in_the_official_protocol_a_window_has_no_context(make_task: MakeTask) -> None:
    """Both windows of 8 words predict 7, of which the first three are guessed."""
    task = make_task(window=8, protocol="official")
    assert task.evaluate(Periodic(), "test")["perplexity"] == pytest.approx(5 ** (3 / 7))


@pytest.mark.parametrize("window", range(2, 9))
def test_every_word_is_predicted_once_from_half_a_window_or_all_that_there_is(
    make_task: MakeTask, window: int
) -> None:
    task, length, context = make_task(window=window), window - 1, (window - 1) // 2
    apart = task.evaluation_windows("validation")
    stream, words = (torch.cat(parts, 1) for parts in zip(*apart, strict=True))
    begin = 0
    for tokens, targets in task.evaluation_windows("validation", context):
        end = begin + targets.shape[1]
        assert torch.equal(targets, words[:, begin:end])
        assert tokens.shape[1] <= length
        assert tokens.shape[1] - targets.shape[1] == min(context, begin)
        assert torch.equal(tokens, stream[:, end - tokens.shape[1] : end])
        begin = end
    assert begin == words.shape[1]


def test_the_baseline_is_the_perplexity_of_the_training_frequencies(make_task: MakeTask) -> None:
    """Training has a 30 times, b 20, c 10 and the end 20; the unknown counts once: 81 in all.

    Test: b a <unk> end c a a b end.
    """
    seen = [20, 30, 1, 20, 10, 30, 30, 20, 20]
    by_hand = math.exp(-sum(math.log(count / 81) for count in seen) / 9)
    assert make_task().baseline() == pytest.approx(by_hand)


# What else the engine asks for


def test_outputs_are_the_log_probabilities_after_the_last_word(make_task: MakeTask) -> None:
    task = make_task()
    model = task.model().eval()
    batch = task.scoring_batches(0)[0]
    outputs = task.outputs(model, batch)
    assert outputs.shape == (8, 5)
    torch.testing.assert_close(outputs.exp().sum(1), torch.ones(8))
    assert torch.equal(task.inference(model, batch)[:, -1], outputs)
    assert [part.shape for part in task.one_sample()] == [(1, 4), (1, 4)]


@pytest.mark.parametrize("scale", [1, 100])
def test_flow_reaches_every_weight_however_large_and_treats_words_alike(
    make_task: MakeTask, scale: float
) -> None:
    task = make_task(window=8)
    torch.manual_seed(0)
    model = task.model()
    weights = prunable_weights(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(scale)
    with magnitudes(model, {}):
        flow = task.flow(model)
        gradients = torch.autograd.grad(flow, [*weights.values()])
    assert flow.isfinite()
    assert all((gradient > 0).all() for gradient in gradients)
    words = dict(zip(weights, gradients, strict=True))["embedding.weight"]
    torch.testing.assert_close(words, words[:1].expand_as(words))


def test_nothing_flows_without_the_input(make_task: MakeTask) -> None:
    task = make_task()
    model = task.model()
    assert isinstance(model, PSMM)
    with torch.no_grad():
        model.query.bias.fill_(1)
        model.vocabulary.bias.fill_(1)
        model.embedding.weight.zero_()
    with magnitudes(model, {}):
        assert task.flow(model) == 0


def test_flow_does_not_reach_what_leads_nowhere(make_task: MakeTask) -> None:
    """Nothing reads hidden unit 2: neither the LSTM, the vocabulary, the query nor the pointer."""
    task = make_task()
    model = task.model()
    assert isinstance(model, PSMM)
    with torch.no_grad():
        for reader in (model.lstm.weight_hh, model.vocabulary.weight, model.query.weight):
            reader[:, 2] = 0
        model.query.weight[2] = 0
    with magnitudes(model, {}):
        (gradient,) = torch.autograd.grad(task.flow(model), [model.lstm.weight_ih])
    of_unit = gradient.view(4, 6, 6)
    assert not of_unit[:, 2].any()
    assert (of_unit[:, [0, 1, 3, 4, 5]] > 0).all()


# Shorter sequences


@pytest.mark.parametrize(
    "network",
    [{"model": "psmm"}, {"model": "transformer", "positions": "learned", "dropout": 0.0}],
    ids=str,
)
def test_a_window_is_read_at_several_lengths_and_never_beyond_its_own(
    make_task: MakeTask, network: dict[str, Any]
) -> None:
    task = make_task(window=8, **network)
    model, batch = task.model().eval(), task.scoring_batches(0)[0]
    by_length = task.by_length(batch)
    assert list(by_length) == [1, 2, 4, 7]
    assert by_length[7] is batch
    whole = task.inference(model, batch)
    for length, shorter in by_length.items():
        assert [each.tolist() for each in shorter] == [each[:, :length].tolist() for each in batch]
        assert task.inference(model, shorter).shape == whole[:, :length].shape
