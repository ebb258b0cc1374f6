"""Suites list the runs of a matrix, and mistakes in them are explained."""

from __future__ import annotations

import re
import textwrap
from pathlib import Path

import pytest

from harness.command_line import parse
from harness.commands.matrix import requested_suite
from harness.errors import RequestError
from harness.matrix.suite import Suite, find_suite, own_suites, read_suite, requests
from harness.registry import Registry

REGISTRY = Registry()


def suite(folder: Path, text: str) -> Suite:
    path = folder / "mine.toml"
    path.write_text(textwrap.dedent(text))
    return read_suite(path)


def names(wanted: Suite) -> list[str]:
    return [str(request) for request in requests(wanted, REGISTRY)]


def test_every_combination_is_a_run_and_dense_runs_once_per_seed(
    tmp_path: Path,
) -> None:
    wanted = suite(
        tmp_path,
        """
        [[runs]]
        tasks = ["digits"]
        pruners = ["dense", "snip"]
        sparsities = [0.9, 0.98]
        seeds = [0, 1]
        """,
    )
    assert names(wanted) == [
        "dense on digits seed 0",
        "snip on digits 0.9 seed 0",
        "snip on digits 0.98 seed 0",
        "dense on digits seed 1",
        "snip on digits 0.9 seed 1",
        "snip on digits 0.98 seed 1",
    ]


def test_options_are_an_axis(tmp_path: Path) -> None:
    wanted = suite(
        tmp_path,
        """
        [[runs]]
        tasks = ["digits"]
        pruners = ["dense"]
        options = [{}, {epochs = 40, schedule = "onecycle"}]
        """,
    )
    assert names(wanted) == [
        "dense on digits seed 0",
        "dense on digits seed 0 epochs=40 schedule=onecycle",
    ]


@pytest.mark.parametrize(
    ("line", "changes"),
    [
        ("set = [{}, {epochs = 40, floor = 0.5}]", [{}, {"epochs": "40", "floor": "0.5"}]),
        ('set = {kernel = "on"}', [{"kernel": "on"}]),
        ("options = [{relative = true}]", [{"relative": "true"}]),
    ],
)
def test_set_takes_settings_as_on_the_command_line(
    tmp_path: Path, line: str, changes: list[dict[str, str]]
) -> None:
    wanted = suite(tmp_path, f'[[runs]]\ntasks = ["digits"]\npruners = ["dense"]\n{line}\n')
    assert [request.overrides for request in requests(wanted, REGISTRY)] == changes


def test_seeds_may_be_a_range(tmp_path: Path) -> None:
    wanted = suite(tmp_path, '[[runs]]\ntasks = ["digits"]\npruners = ["dense"]\nseeds = "0-2,7"\n')
    assert [request.seed for request in requests(wanted, REGISTRY)] == [0, 1, 2, 7]


def test_plug_ins_are_relative_to_the_suite(tmp_path: Path) -> None:
    wanted = suite(tmp_path, 'plugins = ["mine.py", "../theirs.py"]')
    assert [plugin.resolve() for plugin in wanted.plugins] == [
        tmp_path / "mine.py",
        tmp_path.parent / "theirs.py",
    ]


def test_all_means_every_registered_name(tmp_path: Path) -> None:
    wanted = suite(
        tmp_path,
        """
        [[runs]]
        tasks = {all_except = ["digits"]}
        pruners = "all"
        """,
    )
    found = requests(wanted, REGISTRY)
    assert {request.pruner for request in found} == set(REGISTRY.of_kind("pruner"))
    assert {request.task for request in found} == set(REGISTRY.of_kind("task")) - {"digits"}


def test_parts_that_overlap_by_all_do_not_double_a_run(tmp_path: Path) -> None:
    part = '[[runs]]\ntasks = "all"\npruners = ["dense"]\n'
    assert names(suite(tmp_path, part + part)) == names(suite(tmp_path, part))


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("titel = 'x'", "unknown key 'titel'; did you mean 'title'?"),
        ("title = 3", "title: 3 is not a string"),
        ("profile = 'papr'", "unknown profile 'papr'; did you mean 'paper'?"),
        ("runs = 3", "runs: 3 is not a list"),
        ("[[runs]]\ntasks = ['digits']", "the axis 'pruners' is missing from [[runs]]"),
        ("[[runs]]\ntask = ['digits']", "unknown key 'task'; did you mean 'tasks'?"),
        (
            "[[runs]]\ntasks = 'ptb'\npruners = 'all'",
            "tasks = 'ptb' is neither a list of names nor 'all'",
        ),
        ("[[runs]]\ntasks = []\npruners = 'all'", "the axis 'tasks' is empty"),
        ("[[runs]]\ntasks = ['ptb', 'ptb']\npruners = 'all'", "the axis 'tasks' has 'ptb' twice"),
        ("[[runs]]\ntasks = [1]\npruners = 'all'", "tasks: 1 is not a string"),
        ("[[runs]]\ntasks = {but = []}\npruners = 'all'", "unknown key 'but'; known: all_except"),
        ("[resources]\nhours = -1", "hours: -1 is not greater than 0"),
        ("[resources]\nthreads = 1.5", "threads: 1.5 is not a whole number"),
        ("[resources]\ngpu = 1", "unknown key 'gpu'; known: gigabytes, hours, threads"),
        ("[[runs]", "is not TOML: "),
        (f"x = {'[' * 5000}", "is not TOML: "),
        ("plugins = 'mine.py'", "plugins: 'mine.py' is not a list"),
        ("plugins = [3]", "plugins: 3 is not a string"),
        ("[resources]\nhours = nan", "hours: nan is not greater than 0"),
        ("[resources]\nhours = inf", "hours: inf is not greater than 0"),
    ],
)
def test_a_mistake_is_explained_in_one_line(tmp_path: Path, text: str, complaint: str) -> None:
    with pytest.raises(RequestError) as refusal:
        suite(tmp_path, text)
    assert str(refusal.value).startswith(f"suite {tmp_path / 'mine.toml'}")
    assert complaint in str(refusal.value)


@pytest.mark.parametrize(
    ("axis", "complaint"),
    [
        ("seeds = [0, 0]", "the axis 'seeds' has 0 twice"),
        ("seeds = [-1]", "seed -1 is negative; seeds are 0, 1, 2 ..."),
        ("seeds = '3-1'", "seeds = 3-1: 3-1 ends before it begins"),
        ("seeds = 'x'", "seeds = x is not a list of numbers, as in 0,1,2 or 0-4"),
        ("sparsities = [nan]", "sparsity nan is outside [0, 1)"),
        ("sparsities = [0.5, 1]", "sparsity 1 is outside [0, 1)"),
        ("set = []", "the axis 'set' is empty"),
        ("set = [{epochs = [1]}]", "set: epochs: [1] is not a number, a string, true or false"),
        ("set = [{}]\noptions = [{}]", "set and options are the same; write set only"),
        ("seeds = [true]", "seeds: True is not a whole number"),
        ("seeds = [0.5]", "seeds: 0.5 is not a whole number"),
        ("sparsities = ['lots']", "sparsities: 'lots' is not a number"),
        ("options = [3]", "options: 3 is not a table"),
    ],
)
def test_values_of_the_wrong_type(tmp_path: Path, axis: str, complaint: str) -> None:
    with pytest.raises(RequestError, match=re.escape(complaint)):
        suite(tmp_path, f"[[runs]]\ntasks = 'all'\npruners = 'all'\n{axis}")


def test_a_run_that_is_listed_twice_is_refused(tmp_path: Path) -> None:
    part = "[[runs]]\ntasks = ['digits']\npruners = ['snip', 'crop_u']\nsparsities = [0.9]\n"
    with pytest.raises(RequestError, match=r"lists this run twice: snip on digits 0\.9 seed 0"):
        suite(tmp_path, part + part.replace(", 'crop_u'", ""))


def test_unregistered_names_are_refused(tmp_path: Path) -> None:
    wanted = suite(tmp_path, "[[runs]]\ntasks = ['digist']\npruners = 'all'")
    with pytest.raises(RequestError, match="unknown task 'digist'; did you mean 'digits'"):
        requests(wanted, REGISTRY)
    with pytest.raises(RequestError, match="suite empty has no runs"):
        requests(Suite("empty", "Empty", ()), REGISTRY)


def test_missing_suites_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="unknown suite 'smoek'; did you mean 'smoke'"):
        find_suite("smoek")
    with pytest.raises(RequestError, match=r"nowhere.toml cannot be read: No such file"):
        find_suite(str(tmp_path / "nowhere.toml"))


@pytest.mark.parametrize("path", own_suites(), ids=lambda path: path.stem)
def test_our_own_suites_can_be_planned(path: Path) -> None:
    assert requests(read_suite(path), REGISTRY)


def test_our_own_suites_are_complete() -> None:
    promised = {"smoke", "embedded", "sparsity_curve", "structured", "unstructured"}
    promised |= {"reinforcement_learning", "warmup", "pruningbench", "transformers"}
    promised |= {"moment", "laptop_moment"}
    promised |= {"fashion_mnist", "laptop", "workstation"}
    talk = {"talk_image_classification", "talk_large_models", "talk_other_tasks"}
    assert {path.stem for path in own_suites()} == promised | talk


def test_the_moments_of_the_laptop_have_its_recipes() -> None:
    recipes: dict[str, set[tuple[str, tuple[tuple[str, str], ...]]]] = {}
    own = {"moment", "steps", "scales", "weight_sparsity", "channel_sparsity"}
    for name in ("laptop", "laptop_moment"):
        recipes[name] = {
            (request.task, tuple((k, v) for k, v in request.overrides.items() if k not in own))
            for request in requests(find_suite(name), REGISTRY)
        }
    assert recipes["laptop_moment"] < recipes["laptop"]


@pytest.mark.parametrize("name", ["laptop", "workstation"])
def test_official_data_and_the_methods_of_the_paper(name: str) -> None:
    suite = find_suite(name)
    assert suite.profile == "paper"
    (talk,) = find_suite("talk_image_classification").axes
    on_cifar10 = [axes.pruners for axes in suite.axes if "cifar10" in axes.tasks.listed]
    assert talk.pruners in on_cifar10
    tasks = {request.task for request in requests(suite, REGISTRY)}
    assert tasks == {"fashion_mnist", "cifar10", "ptb"}


class TestCommandLine:
    """Axes on the command line replace those of a suite, or make a suite of their own."""

    def asked(self, *words: str) -> Suite:
        return requested_suite(parse(["matrix", *words]))

    def refused(self, *words: str) -> str:
        with pytest.raises(RequestError) as refusal:
            self.asked(*words)
        return str(refusal.value)

    def test_without_a_suite(self) -> None:
        wanted = self.asked("--tasks", "digits", "--pruners", "snip,dense", "--sparsities", "0.9")
        assert names(wanted) == ["snip on digits 0.9 seed 0", "dense on digits seed 0"]
        assert wanted.profile == "embedded"
        assert names(self.asked("--pairing", "digits-snip")) == ["snip on digits seed 0"]

    def test_options_replace_the_axes_of_a_suite(self) -> None:
        wanted = self.asked("--suite", "smoke", "--task", "digits", "--seeds", "5")
        found = requests(wanted, REGISTRY)
        assert {(request.task, request.seed) for request in found} == {("digits", 5)}
        assert wanted.profile == "smoke"

    def test_tasks_select_the_parts_of_a_suite_that_have_them(self, tmp_path: Path) -> None:
        file = tmp_path / "mine.toml"
        file.write_text(
            "[[runs]]\ntasks = ['digits', 'ptb']\npruners = ['snip']\nset = {epochs = 2}\n"
            "[[runs]]\ntasks = {all_except = ['digits', 'ptb']}\npruners = ['crop_u']\n"
        )
        on_ptb = self.asked("--suite", str(file), "--tasks", "ptb", "--seeds", "3")
        assert names(on_ptb) == ["snip on ptb seed 3 epochs=2"]
        on_two = self.asked("--suite", str(file), "--tasks", "cartpole,ptb")
        assert names(on_two) == ["snip on ptb seed 0 epochs=2", "crop_u on cartpole seed 0"]

    def test_tasks_that_a_suite_lacks_replace_its_own(self, tmp_path: Path) -> None:
        file = tmp_path / "mine.toml"
        file.write_text("[[runs]]\ntasks = ['digits', 'ptb']\npruners = ['snip']\n")
        wanted = self.asked("--suite", str(file), "--tasks", "digits,cartpole")
        assert names(wanted) == ["snip on digits seed 0", "snip on cartpole seed 0"]

    @pytest.mark.parametrize(
        ("words", "complaint"),
        [
            ("", "--suite or --tasks is missing (--tasks all means every one)"),
            ("--tasks digits", "--suite or --pruners is missing (--pruners all means every one)"),
            ("--pairing digits", "--pairing digits is not TASK-PRUNER (as in ptb-earlycrop_u"),
            ("--pairing digits-snip --tasks ptb", "--pairing replaces --tasks and --"),
            ("--tasks , --pruners all", "the axis 'tasks' is empty"),
            ("--tasks ptb,ptb --pruners all", "the axis 'tasks' has 'ptb' twice"),
            ("--suite smoke --seeds 0,x", "--seeds 0,x is not a list of numbers, as in 0,1,2"),
            ("--suite smoke --profile smok", "unknown profile 'smok'; did you mean 'smoke'?"),
        ],
    )
    def test_a_mistake_is_explained(self, words: str, complaint: str) -> None:
        assert self.refused(*words.split()).startswith(complaint)


class TestBudgets:
    def test_they_are_an_axis_in_place_of_sparsities(self, tmp_path: Path) -> None:
        wanted = suite(
            tmp_path,
            """
            [[runs]]
            tasks = ["digits"]
            pruners = ["dense", "crop_s", "slim_dense"]
            budgets = ["macs=0.50", "params=10000"]
            """,
        )
        assert names(wanted) == [
            "dense on digits seed 0",
            "crop_s on digits macs=0.5 seed 0",
            "slim_dense on digits macs=0.5 seed 0",
            "crop_s on digits params=10k seed 0",
            "slim_dense on digits params=10k seed 0",
        ]

    @pytest.mark.parametrize(
        ("axes", "complaint"),
        [
            ('sparsities = [0.9]\nbudgets = ["macs=0.5"]', "a run has one or the other"),
            ('budgets = ["macs=0.5", "macs=0.50"]', "has 'macs=0.5' twice"),
            ('budgets = ["mac=0.5"]', "unknown kind 'mac'; did you mean 'macs'?"),
            ("budgets = [0.5]", "0.5 is not a string"),
        ],
    )
    def test_a_mistake_is_one_line(self, tmp_path: Path, axes: str, complaint: str) -> None:
        with pytest.raises(RequestError, match=re.escape(complaint)) as refusal:
            suite(tmp_path, f'[[runs]]\ntasks = ["digits"]\npruners = ["crop_s"]\n{axes}')
        assert "\n" not in str(refusal.value)

    def test_the_command_line_replaces_sparsities_by_budgets_and_the_other_way(self) -> None:
        def targets(*words: str) -> set[tuple[float | None, str | None]]:
            wanted = requested_suite(parse(["matrix", "--seeds", "0", *words]))
            return {
                (request.sparsity, request.budget)
                for request in requests(wanted, REGISTRY)
                if request.pruner == "crop_s"
            }

        assert targets("--suite", "structured", "--budgets", "macs=0.5") == {(None, "macs=0.5")}
        assert targets("--suite", "pruningbench", "--sparsities", "0.9") == {(0.9, None)}

    def test_pruningbench_has_its_three_operating_points(self) -> None:
        (part,) = find_suite("pruningbench").axes
        assert part.budgets == ("macs=0.5", "macs=0.25", "macs=0.125")
        assert part.options == ({"floor": "0.1"},)
