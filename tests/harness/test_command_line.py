"""The contract of the command line: outputs, exit codes, and one line for every mistake."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from harness.command_line import COMMANDS, main
from harness.errors import RunFailed
from harness.record import SCHEMA
from harness.storage.store import Store
from tests.helpers.commands import Command
from tests.helpers.records import RECORD
from tests.helpers.workbench import POINTS

THIRD_PARTY = '''\
"""A method of somebody else."""

from harness.registry import pruner
from harness.run import Run
from pruners.criteria import magnitude
from pruners.weights import Weights


@pruner("theirs", title="Theirs")
def theirs(run: Run, *, epoch: int = 1) -> None:
    """Remove the smallest weights soon."""
    run.train(epochs=epoch)
    run.prune(Weights, magnitude, run.sparsity)
    run.train()
'''


CLOSED = """
import os, signal
from pathlib import Path
from harness.registry import pruner

@pruner("closed", title="Closed")
def closed(run):
    run.train(epochs=1)
    if not Path("was-closed").exists():
        Path("was-closed").touch()
        os.kill(os.getpid(), signal.SIGHUP)
        os.kill(os.getpid(), signal.SIGHUP)
    run.train()
"""


def _files(folder: Path) -> list[Path]:
    """Return all files except Python's cache of a plug-in."""
    return sorted(file for file in folder.rglob("*") if "__pycache__" not in file.parts)


@pytest.fixture
def refused(command: Command, tmp_path: Path) -> Callable[..., str]:
    """Make a request, check that it is refused and writes nothing, and return why."""

    def refusal(*words: object) -> str:
        before = _files(tmp_path)
        said = command(*words)
        assert said.code == 2
        assert said.out == ""
        (line,) = said.err.splitlines()
        assert line.startswith("error: ")
        assert _files(tmp_path) == before
        return line.removeprefix("error: ")

    return refusal


Refused = Callable[..., str]


@pytest.fixture
def third_party(tmp_path: Path) -> Path:
    """The file of somebody else's plug-in."""
    assert len(THIRD_PARTY.splitlines()) <= 15
    file = tmp_path / "theirs.py"
    file.write_text(THIRD_PARTY)
    return file


POINTS_RUN = ("run", "--task", "points", "--plugin", POINTS, "--profile", "smoke")


class TestList:
    def test_everything_is_listed_in_columns(self, command: Command) -> None:
        said = command("list")
        assert said.code == 0
        assert max(map(len, said.out.splitlines())) <= 100
        assert re.search(r"^tasks\n  cartpole +CartPole-v0", said.out)
        assert re.search(r"\n\npruners that never prune\n  dense +Dense +\w", said.out)
        assert re.search(r"^  crop_u  +CroP-U  +Keep the weights", said.out, re.MULTILINE)
        assert said.err == ""

    def test_pruners_are_grouped_by_when_they_prune(self, command: Command) -> None:
        said = command("list", "pruners").out
        groups = re.split(r"^pruners ", said, flags=re.MULTILINE)
        early = next(group for group in groups if group.startswith("early in training"))
        assert "  earlycrop_u " in early
        assert "  crop_u " not in early

    def test_what_a_pruner_needs_is_listed(self, command: Command) -> None:
        said = " ".join(command("list", "pruners").out.split())
        assert "Prune with SNIP, a little at a time. Needs gradients." in said

    def test_one_kind_is_listed(self, command: Command) -> None:
        said = command("list", "tasks")
        assert "digits" in said.out
        assert "crop_u" not in said.out

    @pytest.mark.parametrize(("kind", "name"), [("tasks", "ptb"), ("pruners", "earlycrop_u")])
    def test_json_is_one_array_of_objects(self, command: Command, kind: str, name: str) -> None:
        objects = json.loads(command("list", kind, "--json").out)
        assert name in [each["name"] for each in objects]
        assert all(each["title"] for each in objects)

    def test_plug_ins_are_listed_too(self, command: Command, third_party: Path) -> None:
        objects = json.loads(command("list", "pruners", "--json", "--plugin", third_party).out)
        (theirs,) = [each for each in objects if each["name"] == "theirs"]
        assert theirs["title"] == "Theirs"
        assert theirs["summary"] == "Remove the smallest weights soon."
        assert theirs["options"] == {"epoch": 1}


class TestRun:
    def test_progress_goes_to_stderr_and_a_summary_to_stdout(self, command: Command) -> None:
        said = command(*POINTS_RUN, "--pruner", "crop_u")
        assert said.code == 0
        assert said.out.startswith("points-crop_u-0.8-seed0-")
        assert "weights removed  80 % of 80" in said.out
        lines = said.err.splitlines()
        assert len(lines) == 6
        assert lines[0].startswith("pruned to 80")
        assert lines[1].startswith("  removed 64 of 80 weights")
        assert re.fullmatch(r"epoch 4/4  loss \S+  validation accuracy \S+", lines[-1])

    def test_progress_says_when_a_method_trains_longer_than_its_budget(
        self, command: Command
    ) -> None:
        said = command(*POINTS_RUN, "--pruner", "ltr")
        epochs = [line.split("  ")[0] for line in said.err.splitlines() if "validation" in line]
        assert epochs[:6] == [
            "epoch 1/4",
            "epoch 2/4",
            "epoch 3/4",
            "epoch 4/4",
            "epoch 5 (budget: 4)",
            "epoch 6 (budget: 4)",
        ]

    def test_with_json_the_last_line_is_the_record(self, command: Command) -> None:
        said = command(*POINTS_RUN, "--pruner", "dense", "--json")
        record = json.loads(said.out.splitlines()[-1])
        assert record == Store(Path("results")).find("points-dense-0")
        assert record["schema"] == SCHEMA
        keys = "schema run_id status reason spec task pruner data quality sparsity cost events"
        assert {*keys.split(), "provenance"} <= record.keys()

    def test_a_finished_run_is_not_run_again(self, command: Command) -> None:
        first = command(*POINTS_RUN, "--pruner", "dense")
        again = command(*POINTS_RUN, "--pruner", "dense", "--sparsity", "0.5", "--json")
        assert again.code == 0
        assert again.out.startswith(first.out)
        assert re.search(r"^points-dense-0-seed0-\w+ is already done\n$", again.err, re.MULTILINE)
        assert json.loads(again.out.splitlines()[-1])["spec"]["sparsity"] == 0

    def test_a_pairing_names_task_and_pruner_in_one_word(self, command: Command) -> None:
        words = ("run", "--pairing", "points-dense", "--plugin", POINTS, "--profile", "smoke")
        assert command(*words).out.startswith("points-dense-0-seed0-")

    def test_settings_reach_the_record(self, command: Command) -> None:
        said = command(
            *(*POINTS_RUN, "--pruner", "cropit_u", "--sparsity", "0.5", "--seed", "3"),
            *("--set", "epochs=2", "--set", "steps=2", "--results", "elsewhere", "--json"),
        )
        record = json.loads(said.out.splitlines()[-1])
        assert record["spec"] == {
            "task": "points",
            "pruner": "cropit_u",
            "sparsity": 0.5,
            "seed": 3,
            "profile": "smoke",
            "overrides": {"epochs": 2, "steps": 2},
            "plugins": ["points.py"],
        }
        assert record["cost"]["epochs"] == 2
        assert Store(Path("elsewhere")).run_ids() == [record["run_id"]]

    def test_a_plug_in_in_one_file_runs(self, command: Command, third_party: Path) -> None:
        said = command(*POINTS_RUN, "--pruner", "theirs", "--plugin", third_party, "--json")
        record = json.loads(said.out.splitlines()[-1])
        assert record["status"] == "done"
        assert record["sparsity"]["weights"] == pytest.approx(0.8)
        assert record["pruner"]["title"] == "Theirs"
        assert record["spec"]["plugins"] == ["points.py", "theirs.py"]

    def test_a_failed_run_is_reported_in_one_line_with_exit_code_one(
        self, command: Command, tmp_path: Path
    ) -> None:
        plugin = tmp_path / "mine.py"
        plugin.write_text("@pruner('mine', title='M')\ndef mine(run): run.train(epochs=1)\n")
        plugin.write_text("from harness.registry import pruner\n" + plugin.read_text())
        said = command(*POINTS_RUN, "--pruner", "mine", "--plugin", plugin)
        assert said.code == 1
        assert said.err.splitlines()[-1].startswith("failed: mine ended after 5 of 20 steps")

    @pytest.mark.parametrize("further", [[], ["--dry-run"]])
    def test_a_sparsity_that_is_ignored_is_named(
        self, command: Command, further: list[str]
    ) -> None:
        said = command(*POINTS_RUN, "--pruner", "dense", "--sparsity", "0.5", *further)
        assert said.code == 0
        assert said.err.startswith("dense takes no sparsity: --sparsity is ignored\n")

    def test_a_request_that_cannot_be_met_leaves_nothing(self, command: Command) -> None:
        said = command(*POINTS_RUN, "--pruner", "crop_u", "--sparsity", "0.9999999")
        assert said.code == 2
        assert said.err == (
            "error: crop_u on points: a sparsity of 0.9999999 cannot be reached; "
            "the nearest that can is 0.9875\n"
        )
        assert list(Path("results").iterdir()) == []


class TestBadRequests:
    """Each gives one line on standard error and exit code 2, and writes nothing."""

    @pytest.mark.parametrize(
        ("words", "complaint"),
        [
            (
                "",
                "missing command; choose from list, run, matrix, advise, status, merge, ",
            ),
            ("rnu", "unknown command 'rnu'; did you mean 'run'?"),
            ("list suits", "cannot list 'suits'; did you mean 'suites'?"),
            ("list prunes", "cannot list 'prunes'; did you mean 'pruners'?"),
            ("list --jsn", "unknown argument '--jsn' of list; did you mean '--json'?"),
            ("run", "--task is missing (see: python -m harness list tasks)"),
            ("run --task digits", "--pruner is missing (see: python -m harness list pruners)"),
            ("run --tas digits", "unknown argument '--tas' of run; did you mean '--task'?"),
            ("run --task", "argument --task: expected one argument"),
            ("run --pairing digits", "is not TASK-PRUNER (as in ptb-earlycrop_u)"),
            ("run --pairing digits-", "--pruner is missing (see: python -m harness list pruners)"),
            ("run --pairing digit-dense", "unknown task 'digit'; did you mean 'digits'?"),
            ("run --pairing digits-dens", "unknown pruner 'dens'; did you mean 'dense'?"),
            ("run --pairing ptb-snip --task ptb", "--pairing replaces --task and --pru"),
            (
                "run digits crop_s --seed 1",
                "run takes no positional arguments; use --task digits --pruner crop_s, "
                "or --pairing digits-crop_s",
            ),
            ("run digits", "use --task TASK --pruner PRUNER, or --pairing TASK-PRUNER"),
            ("run --seed x", "argument --seed: 'x' is not a whole number"),
            ("run --seed 1.5", "argument --seed: '1.5' is not a whole number"),
            ("run --sparsity lots", "argument --sparsity: 'lots' is not a number"),
            ("run --checkpoint-every -1", "'-1' is not a number of seconds"),
            ("run --checkpoint-every nan", "'nan' is not a number of seconds"),
            ("run --task digits --pruner dense --seed -1", "seed -1 is negative"),
            ("run --task digits --pruner snip --sparsity nan", "sparsity nan is outside [0, 1)"),
            ("run --task digits --pruner snip --sparsity 1", "sparsity 1 is outside [0, 1)"),
            ("run --task digits --pruner snip --budget macs", "not of the form KIND=AMOUNT, as in"),
            ("run --task digits --pruner snip --budget macs=0", "macs=0 is not more than 0"),
            ("run --task digits --pruner snip --budget mac=0.5", "'mac'; did you mean 'macs'?"),
            ("run --task digits --pruner snip --budget bytes=2m", "unknown unit 'm' of bytes"),
            (
                "run --task digits --pruner snip --budget macs=0.5 --budget params=0.5",
                "macs=0.5 and params=0.5: a run has one budget",
            ),
            (
                "run --task digits --pruner snip --budget macs=0.5 --sparsity 0.9",
                "a run has a sparsity or a budget, not both",
            ),
            ("run --task digits --pruner snip --profile paper", "has no profile 'paper'"),
            (
                "run --task digits --pruner snip --set width",
                "--set width is not KEY=VALUE (as in",
            ),
            (
                "run --task digits --pruner snip --set sparsity=0.9",
                "sparsity is not a setting; use --sparsity 0.9",
            ),
            ("run --task digits --pruner snip --set floor=1", "floor=1 protects every weight"),
            ("run --task digits --pruner snip --set floor=1 --dry-run", "floor=1 protects every"),
            ("run --task digits --pruner snip --set widht=8", "did you mean 'width'?"),
            ("run --task digits --pruner snip --set width=x", "width=x is not a whole number"),
            ("run --task digits --pruner snip --set masks=no", "unknown value; known: inverted, s"),
            (
                "run --task digits --pruner snip --plugin mine.py",
                "mine.py cannot be read: No such",
            ),
            (
                "run --task ptb --pruner snip --profile paper",
                "data/ptb/ptb.train.txt: No such file",
            ),
            (
                "run --task ptb --pruner snip --set text=/nowhere",
                "text=/nowhere is not a folder; known: documentation, official",
            ),
            ("matrix", "--suite or --tasks is missing (--tasks all means every one)"),
            ("matrix --suite smoek", "unknown suite 'smoek'; did you mean 'smoke'?"),
            (
                "matrix --suite smoke --budgets macs=0.5 --sparsities 0.9",
                "sparsities and budgets: a run has one or the other",
            ),
            ("matrix --suite smoke --jobs 0", "argument --jobs: '0' is less than 1"),
            ("matrix --suite smoke --hours 0", "argument --hours: '0' is not greater than 0"),
            ("matrix --suite smoke --executor loacl", "'loacl'; did you mean 'local'?"),
            ("matrix --suite smoke --tasks digist", "unknown task 'digist'; did you mean 'digits'"),
            ("matrix --suite smoke --set seed=1", "seed is not a setting; use --seed 1"),
            ("matrix --suite smoke --set widht=1", "unknown setting 'widht' for "),
            ("status", "results folder results does not exist"),
            ("merge", "the following arguments are required: DIR"),
            ("merge nowhere", "results folder nowhere does not exist"),
            ("show", "the following arguments are required: RUN (see python -m harness show --h"),
            ("show it", "results folder results does not exist"),
            ("compare it", "the following arguments are required: B"),
            ("compare it it", "results folder results does not exist"),
            ("data", "the following arguments are required: list|fetch|check"),
            ("data chek ptb", "unknown action 'chek' of data; did you mean 'check'?"),
            ("data check", "data check needs a task; known: cartpole, "),
            ("data fetch", "data fetch needs a task; known: cartpole, "),
            ("data fetch pbt", "unknown task 'pbt'; did you mean 'ptb'?"),
            ("check prunr snip", "cannot check 'prunr'; did you mean 'pruner'?"),
            ("check pruner snp", "unknown pruner 'snp'; did you mean 'snip'?"),
            ("check task pbt", "unknown task 'pbt'; did you mean 'ptb'?"),
        ],
    )
    def test_each_says_what_and_why(self, refused: Refused, words: str, complaint: str) -> None:
        assert complaint in refused(*words.split())

    @pytest.mark.parametrize(
        ("device", "complaint"),
        [
            ("cuda:77", "device 'cuda:77' is not there: this machine has "),
            ("gpu", "unknown device 'gpu'; did you mean 'cuda'?"),
            ("gpu:1", "unknown device 'gpu:1'; did you mean 'cuda:1'?"),
            ("tpu", "unknown device 'tpu'; did you mean 'cpu'?"),
            ("nonsense", "unknown device 'nonsense'; known: auto, cpu, cuda, cuda:1"),
        ],
    )
    def test_a_missing_device_is_refused(
        self, refused: Refused, device: str, complaint: str
    ) -> None:
        assert complaint in refused(*POINTS_RUN, "--pruner", "dense", "--device", device)

    def test_a_plug_in_that_does_not_import_is_refused(
        self, refused: Refused, tmp_path: Path
    ) -> None:
        plugin = tmp_path / "mine.py"
        plugin.write_text("import nowhere\n@pruner('mine', title='M')\ndef mine(run): ...\n")
        for words in ((*POINTS_RUN, "--pruner", "mine"), ("check", "pruner", "mine")):
            assert refused(*words, "--plugin", plugin) == (
                "pruner 'mine': mine.py, line 1: does not import: "
                "ModuleNotFoundError: No module named 'nowhere'"
            )

    def test_a_results_folder_that_is_a_file_is_refused(
        self, refused: Refused, tmp_path: Path
    ) -> None:
        (tmp_path / "results").write_text("precious")
        for words in ((*POINTS_RUN, "--pruner", "dense"), ("show", "x"), ("compare", "x", "y")):
            assert refused(*words) == "results folder results is a file, not a folder"
        assert (tmp_path / "results").read_text() == "precious"

    def test_a_record_that_cannot_be_read_is_refused_and_kept(
        self, command: Command, refused: Refused
    ) -> None:
        words = (*POINTS_RUN, "--pruner", "dense")
        command(*words)
        (file,) = Path("results").glob("*/record.json")
        for content, complaint in (
            ("{", "is damaged; remove it to run again"),
            (json.dumps({**RECORD, "schema": SCHEMA + 1}), f"newer than {SCHEMA}"),
        ):
            file.write_text(content)
            for request in (words, ("show", file.parent), ("compare", file.parent, file.parent)):
                assert complaint in refused(*request)
            assert file.read_text() == content

    def test_missing_official_data_are_reported(self, command: Command) -> None:
        said = command("data", "check", "ptb")
        assert said.code == 2
        (line,) = said.err.splitlines()
        assert (
            "ptb.train.txt: No such file or directory; run `python -m harness data fetch ptb`"
            in line
        )
        assert "or copy ptb.train.txt into data/ptb" in line
        assert re.search(r"ptb +paper +missing", said.out)
        assert "No such file" not in said.out


class TestData:
    def test_the_list_names_every_profile(self, command: Command) -> None:
        said = command("data", "list")
        assert said.code == 0
        assert re.search(r"^ +task +profile +source +sha256 +data\n", said.out)
        assert re.search(r"\n +digits +embedded +real +[0-9a-f]{8} +scikit-learn digits", said.out)
        assert max(map(len, said.out.splitlines())) <= 100

    def test_existing_data_pass_the_check(self, command: Command) -> None:
        assert command("data", "check", "digits").code == 0

    @pytest.mark.parametrize(
        ("words", "complaint"),
        [
            ("check ptb --set txt=official", "unknown setting 'txt' of ptb; did you mean 'text'?"),
            ("check ptb --set reader=mine", "reader=mine: unknown value"),
            ("list --set text=official", "--set is for data list TASK and data check TASK"),
            ("fetch ptb --set text=official", "--set is for data list TASK and data check"),
        ],
    )
    def test_wrong_settings_of_data_are_refused(
        self, command: Command, words: str, complaint: str
    ) -> None:
        said = command("data", *words.split())
        assert said.code == 2
        assert complaint in said.err


class TestShow:
    @pytest.fixture(autouse=True)
    def done(self, tmp_path: Path) -> None:
        store = Store(tmp_path / "results")
        store.open_run(RECORD["run_id"])
        store.save(RECORD)

    def test_it_prints_a_summary_and_the_events(self, command: Command) -> None:
        said = command("show", "digits")
        assert said.code == 0
        assert said.out.startswith(f"{RECORD['run_id']}: done\n")
        assert "the trigger fired" in said.out

    def test_with_json_it_prints_the_record(self, command: Command) -> None:
        assert json.loads(command("show", "digits", "--json").out) == RECORD


class TestCheck:
    def test_kept_and_broken_rules_are_told_apart(
        self, command: Command, third_party: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from harness import contracts

        def everything_ends(subject: Any) -> None:
            """Everything ends."""
            assert subject.record["status"] == "done"

        def nothing_is_perfect(subject: Any) -> None:
            """Nothing is perfect."""
            raise ValueError("indeed")

        rules = (everything_ends, nothing_is_perfect)
        monkeypatch.setattr(contracts, "PRUNER_CONTRACT", rules)
        said = command("check", "pruner", "theirs", "--plugin", third_party)
        assert said.code == 1
        assert said.out.splitlines() == [
            "ok      Everything ends",
            "BROKEN  Nothing is perfect: ValueError: indeed",
            "pruner theirs fails 1 of 2 checks",
        ]

    @pytest.mark.slow
    def test_a_third_party_pruner_keeps_the_contract(
        self, command: Command, third_party: Path
    ) -> None:
        said = command("check", "pruner", "theirs", "--plugin", third_party)
        assert said.code == 0, said.out
        assert said.out.splitlines()[-1] == "pruner theirs passes all 5 checks"


class TestHelp:
    @pytest.mark.parametrize("name", [None, *COMMANDS])
    def test_it_fits_the_screen_and_explains_every_option(
        self, name: str | None, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("COLUMNS", "100")
        with pytest.raises(SystemExit) as end:
            main([*([name] if name else []), "--help"])
        assert end.value.code == 0
        text = capsys.readouterr().out
        assert max(map(len, text.splitlines())) <= 100
        assert all(command in text for command in ([] if name else COMMANDS))
        for option in re.finditer(r"^  (--\S+)( [A-Z-]+)?(?P<help>.*)$", text, re.MULTILINE):
            following = text[option.end() :].partition("\n")[2]
            assert option["help"] or following.startswith(" " * 20), option[1]

    def test_the_examples_of_run_are_valid(self, capsys: pytest.CaptureFixture[str]) -> None:
        from harness.command_line import parse
        from harness.commands.run import EXAMPLES

        commands = re.findall(r"python -m harness (.+)", EXAMPLES)
        assert [parse(command.split()).command for command in commands] == ["run"] * 4


class TestEndings:
    @pytest.mark.parametrize(
        ("error", "line"),
        [
            (RunFailed("the disk is full"), "failed: the disk is full\n"),
            (KeyboardInterrupt(), "interrupted\n"),
            (OSError(28, "No space left on device", "x"), "failed: x: No space left on device\n"),
            (SystemExit(3), "failed: a plug-in calls sys.exit(3)\n"),
            (RunFailed("two\nlines"), "failed: two lines\n"),
        ],
    )
    def test_a_failure_is_one_line_with_exit_code_one(
        self,
        command: Command,
        monkeypatch: pytest.MonkeyPatch,
        error: BaseException,
        line: str,
    ) -> None:
        def fail(arguments: Any) -> int:
            raise error

        monkeypatch.setattr("harness.commands.list.execute", fail)
        said = command("list")
        assert (said.code, said.err) == (1, line)

    @pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
    @pytest.mark.parametrize(
        ("words", "saved"),
        [
            ("list", ""),
            ("report", ""),
            ("check pruner snip", ""),
            ("compare a b", ""),
            ("merge a", ""),
            ("run", ": the same command resumes from the last checkpoint"),
        ],
    )
    def test_a_signal_says_whether_the_work_is_saved(
        self,
        command: Command,
        monkeypatch: pytest.MonkeyPatch,
        number: int,
        words: str,
        saved: str,
    ) -> None:
        def wait(arguments: Any) -> int:
            os.kill(os.getpid(), number)
            time.sleep(10)
            return 0

        monkeypatch.setattr(f"harness.commands.{words.split()[0]}.execute", wait)
        said = command(*words.split())
        assert (said.code, said.out, said.err) == (1, "", f"interrupted{saved}\n")

    def test_a_run_whose_terminal_is_closed_is_saved_and_resumes(
        self, command: Command, tmp_path: Path
    ) -> None:
        (tmp_path / "closed.py").write_text(CLOSED)
        words = (*POINTS_RUN, "--pruner", "closed", "--sparsity", "0", "--plugin", "closed.py")
        said = command(*words)
        assert (said.code, said.err.splitlines()[-1]) == (
            1,
            "interrupted: the same command resumes from here",
        )
        said = command(*words)
        assert said.code == 0
        assert said.err.startswith("resuming from step 5\n")

    def test_a_reader_that_closes_the_pipe_is_no_failure(self) -> None:
        reading, writing = os.pipe()
        os.close(reading)
        words = [sys.executable, "-m", "harness", "list", "tasks"]
        # With a buffer, the broken pipe is noticed only at the end.
        environment = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
        ended = subprocess.run(
            words, stdout=writing, stderr=subprocess.PIPE, env=environment, check=False
        )
        os.close(writing)
        assert (ended.returncode, ended.stderr) == (0, b"")
