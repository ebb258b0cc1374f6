"""The identity of a run contains everything that decides its result, and nothing else."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from harness.data.description import DataDescription
from harness.errors import RequestError
from harness.registry import Registry
from harness.spec import Plan, as_text, plan
from tasks.images.settings import ImageSettings

REGISTRY = Registry()
FIXED = DataDescription("real", "the same everywhere", "0" * 64)


def planned(task: str = "digits", pruner: str = "crop_u", **request: Any) -> Plan:
    return plan(REGISTRY, task, pruner, **request)


def identity(task: str = "digits", pruner: str = "crop_u", **request: Any) -> str:
    """Return the identity with fixed data, whatever is installed on this machine."""
    return dataclasses.replace(planned(task, pruner, **request), data=FIXED).identity


def refused(**request: Any) -> str:
    """Return the single line that says why a request is refused."""
    with pytest.raises(RequestError) as refusal:
        planned(**request)
    (line,) = str(refusal.value).splitlines()
    return line


class TestIdentity:
    @pytest.mark.parametrize(
        ("request_", "expected"),
        [
            ({}, "1aabdec72929"),
            ({"pruner": "dense"}, "42d93cd5ad20"),
            ({"task": "ptb", "pruner": "earlycrop_u"}, "262e6c38ea13"),
            ({"task": "ptb", "pruner": "snip", "sparsity": 0.95, "seed": 3}, "7f5741c819ed"),
            ({"task": "cartpole", "pruner": "ltr", "profile": "smoke"}, "5d5a1e83c0e3"),
            (
                {"profile": "smoke", "overrides": {"width": "8", "masks": "shuffled"}},
                "15eb08409144",
            ),
            ({"overrides": {"learning_rate": "0.001"}}, "92b27436234d"),
            ({"overrides": {"kernel": "true"}}, "c839fd2b434f"),
            ({"overrides": {"channels_last": "true"}}, "97bc0f50c2f3"),
            ({"task": "cifar10", "overrides": {"augmentation": "false"}}, "e2e9aafbabf2"),
            ({"pruner": "magnitude_s", "overrides": {"relative": "true"}}, "e180c6abb941"),
        ],
    )
    def test_it_never_changes(self, request_: dict[str, Any], expected: str) -> None:
        """The folders of results are named by it: a change that breaks this test loses them all.

        If results should no longer be comparable, raise a version and update these values.
        """
        assert identity(**request_) == expected

    def test_everything_that_decides_the_result_changes_it(self) -> None:
        requests: list[dict[str, Any]] = [
            {},
            {"task": "cartpole"},
            {"pruner": "cropit_u"},
            {"sparsity": 0.97},
            {"seed": 1},
            {"profile": "smoke"},
            {"overrides": {"epochs": "13"}},
            {"overrides": {"statistics": "running"}},
            {"pruner": "cropit_u", "overrides": {"steps": "6"}},
        ]
        identities = {identity(**request) for request in requests}
        assert len(identities) == len(requests)

    def test_the_versions_and_the_data_change_it(self) -> None:
        original = planned()
        other_data = DataDescription("real", FIXED.name, "1" * 64)
        others = [dataclasses.replace(original, data=other_data)]
        for kind in ("task", "pruner"):
            entry = getattr(original, kind)
            newer = dataclasses.replace(entry, arguments={**entry.arguments, "version": 99})
            others.append(dataclasses.replace(original, **{kind: newer}))
        assert len({original.identity, *(other.identity for other in others)}) == 4

    def test_every_change_of_a_plug_in_changes_it(self, tmp_path: Path) -> None:
        def of(source: str) -> str:
            (tmp_path / "mine.py").write_text(source)
            return plan(Registry([tmp_path / "mine.py"]), "digits", "mine").identity

        source = "@pruner('mine', title='Mine')\ndef mine(run): ...\n"
        assert of(source) == of(source)
        assert of(source) != of(source.replace("...", "run.train()"))

    def test_the_place_of_a_plug_in_does_not_matter(self, tmp_path: Path) -> None:
        identities = set()
        for name in ("here.py", "there.py"):
            file = tmp_path / name
            file.write_text("@pruner('mine', title='Mine')\ndef mine(run): ...\n")
            mine = plan(Registry([file]), "digits", "mine", plugins=[file.name])
            identities.add(mine.identity)
        assert len(identities) == 1

    @pytest.mark.parametrize("profile", ["smoke", "embedded"])
    def test_an_override_equal_to_the_default_does_not_count(self, profile: str) -> None:
        default = planned(profile=profile)
        values = {**default.settings, **default.options, **default.conditions}
        same = {name: as_text(value) for name, value in values.items()}
        assert identity(profile=profile, overrides=same) == identity(profile=profile)
        assert planned(profile=profile, overrides=same).spec.overrides == {}

    def test_the_order_and_the_spelling_of_overrides_do_not_matter(self) -> None:
        one = {"width": "8", "learning_rate": "0.01"}
        other = {"learning_rate": "1e-2", "width": "08"}
        assert identity(overrides=one) == identity(overrides=other)

    def test_a_sparsity_equal_to_the_default_does_not_count(self) -> None:
        assert identity(sparsity=0.98) == identity()
        assert identity(task="ptb", sparsity=0.9) == identity(task="ptb")

    def test_a_sparsity_may_be_an_integer(self) -> None:
        assert identity(sparsity=0) == identity(sparsity=0.0)

    def test_a_method_that_prunes_nothing_has_one_identity_at_all_sparsities(self) -> None:
        plans = [planned(pruner="dense", sparsity=sparsity) for sparsity in (None, 0.0, 0.5, 0.98)]
        assert {p.spec.sparsity for p in plans} == {0.0}
        assert len({p.identity for p in plans}) == 1

    def test_the_name_of_the_run_ends_with_it(self) -> None:
        wanted = planned(sparsity=0.5, seed=7)
        assert wanted.run_id == f"digits-crop_u-0.5-seed7-{wanted.identity}"


class TestSettings:
    def test_a_profile_changes_the_settings_that_it_names(self) -> None:
        arguments = REGISTRY.find("task", "digits").arguments
        changes = arguments["profiles"]["smoke"]
        assert dict(planned().settings) == arguments["settings"]
        assert dict(planned(profile="smoke").settings) == {**arguments["settings"], **changes}
        assert changes

    def test_overrides_reach_the_task_the_pruner_and_the_engine(self) -> None:
        overrides = {"width": "8", "steps": "3", "kernel": "on"}
        wanted = planned(pruner="cropit_u", overrides=overrides)
        assert wanted.settings["width"] == 8
        assert wanted.options["steps"] == 3
        assert wanted.conditions.kernel is True
        assert wanted.spec.overrides == {"width": 8, "steps": 3, "kernel": True}

    def test_a_task_gets_its_settings_as_it_declares_them(self) -> None:
        wanted = planned(overrides={"learning_rate": "0.5"})
        assert isinstance(wanted.settings, ImageSettings)
        assert wanted.recipe.learning_rate == wanted.settings["learning_rate"] == 0.5

    @pytest.mark.parametrize("name", ["kernel", "channels_last"])
    @pytest.mark.parametrize(("word", "value"), [("on", True), ("off", False)])
    def test_on_and_off_are_the_old_spellings_of_true_and_false(
        self, name: str, word: str, value: bool
    ) -> None:
        old = planned(overrides={name: word})
        new = planned(overrides={name: as_text(value)})
        assert old.conditions[name] is new.conditions[name] is value
        assert old.run_id == new.run_id

    def test_a_number_of_steps_may_be_zero(self) -> None:
        assert planned(pruner="earlycrop_s", overrides={"steps": "0"}).options["steps"] == 0

    def test_switches_are_written_true_and_false(self) -> None:
        wanted = planned(pruner="random_u", overrides={"uniform": "true"})
        assert wanted.options["uniform"] is True
        assert as_text(wanted.options["uniform"]) == "true"


class TestBadRequests:
    @pytest.mark.parametrize(
        ("request_", "complaint"),
        [
            ({"task": "digit"}, "unknown task 'digit'; did you mean 'digits'?"),
            ({"pruner": "earlycrop"}, "unknown pruner 'earlycrop'; did you mean 'earlycrop_u'?"),
            ({"profile": "paper"}, "'digits' has no profile 'paper'; known: embedded, smoke"),
            ({"profile": "smok"}, "no profile 'smok'; did you mean 'smoke'?"),
            ({"sparsity": 1.0}, "sparsity 1 is outside [0, 1)"),
            ({"sparsity": -0.1}, "sparsity -0.1 is outside [0, 1)"),
            ({"sparsity": 98.0}, "the fraction of weights to remove, as in 0.98"),
            ({"sparsity": float("nan")}, "sparsity nan is outside [0, 1)"),
            ({"pruner": "dense", "sparsity": 2.0}, "sparsity 2 is outside [0, 1)"),
            ({"seed": -1}, "seed -1 is negative"),
            ({"overrides": {"widht": "8"}}, "unknown setting 'widht' for digits with crop_u; did"),
            (
                {"overrides": {"widht": "8"}},
                "(see: python -m harness list task digits, and list pruner crop_u)",
            ),
            ({"overrides": {"steps": "8"}}, "unknown setting 'steps' for digits with crop_u"),
            ({"overrides": {"width": "wide"}}, "width=wide is not a whole number, as in width=32"),
            ({"overrides": {"width": "1.5"}}, "width=1.5 is not a whole number"),
            ({"overrides": {"width": ""}}, "width= is not a whole number"),
            ({"overrides": {"epochs": "0"}}, "epochs=0 is less than 1"),
            ({"overrides": {"warmup": "0.6"}}, "warmup=0.6 is outside [0, 0.5]"),
            (
                {"overrides": {"warmup": "0.05", "schedule": "onecycle"}},
                "warmup=0.05 belongs to schedule=equal; the schedule 'onecycle' has its own",
            ),
            (
                {"pruner": "earlycrop_u", "overrides": {"steps": "-1"}},
                "steps=-1 is outside [0, inf)",
            ),
            ({"overrides": {"clip": "x"}}, "clip=x is not a number, as in clip=10.0"),
            ({"overrides": {"clip": "-1"}}, "clip=-1 is negative"),
            ({"overrides": {"clip": "nan"}}, "clip=nan is not a finite number"),
            ({"overrides": {"schedule": "equl"}}, "schedule=equl: unknown value; did you mean 'eq"),
            ({"overrides": {"optimiser": "lion"}}, "unknown value; known: adam, adamw, sgd"),
            (
                {"pruner": "random_u", "overrides": {"uniform": "yes"}},
                "uniform=yes is neither true nor false",
            ),
        ],
    )
    def test_each_is_reported_in_one_line(self, request_: dict[str, Any], complaint: str) -> None:
        assert complaint in refused(**request_)

    def test_missing_official_data_are_reported_with_where_to_put_them(
        self, tmp_path: Path
    ) -> None:
        line = refused(task="ptb", profile="paper", data_folder=tmp_path)
        assert f"{tmp_path}/ptb/ptb.train.txt: No such file" in line
        assert f"or copy ptb.train.txt into {tmp_path}" in line
        assert "data fetch ptb" in line

    @pytest.mark.parametrize(
        ("function", "complaint"),
        [
            ("nowhere:describe", "No module named 'nowhere'"),
            (
                "harness.data.description:describe",
                "module 'harness.data.description' has no attribute 'describe'",
            ),
        ],
    )
    def test_a_task_whose_data_have_no_description_is_refused(
        self, tmp_path: Path, function: str, complaint: str
    ) -> None:
        plugin = tmp_path / "mine.py"
        plugin.write_text(
            "@task('mine', title='M', metric='m', goal='max', settings={'epochs': 1, "
            "'batch_size': 1, 'optimiser': 'sgd', 'learning_rate': 1, 'weight_decay': 0, "
            f"'clip': 0}}, profiles={{'smoke': {{}}}}, data='{function}')\nclass Mine: ...\n"
        )
        with pytest.raises(RequestError) as refusal:
            plan(Registry([plugin]), "mine", "dense", profile="smoke")
        assert str(refusal.value) == f"task 'mine': what describes its data: {complaint}"

    def test_an_option_that_shadows_a_setting_is_refused(self, tmp_path: Path) -> None:
        plugin = tmp_path / "mine.py"
        plugin.write_text("@pruner('mine', title='M')\ndef mine(run, *, width: int = 1): ...\n")
        with pytest.raises(RequestError, match="'width' belongs to both the task and the pruner"):
            plan(Registry([plugin]), "digits", "mine")


class TestBudget:
    def test_it_is_in_the_name_the_spec_and_the_identity(self) -> None:
        wanted = planned(pruner="crop_s", budget="macs=0.25")
        assert wanted.run_id == f"digits-crop_s-macs0.25-seed0-{wanted.identity}"
        assert wanted.spec.as_dict()["budget"] == "macs=0.25"
        assert wanted.spec.sparsity == 0
        assert "budget" not in planned().spec.as_dict()
        identities = {
            identity(pruner="crop_s", budget=budget)
            for budget in (None, "macs=0.25", "macs=0.26", "params=0.25", "bytes=2MB")
        }
        assert len(identities) == 5

    def test_equal_budgets_are_the_same_run(self) -> None:
        assert identity(budget="bytes=2MB") == identity(budget="bytes=2000kB")

    def test_a_dense_run_serves_every_budget(self) -> None:
        assert identity(pruner="dense", budget="macs=0.25") == identity(pruner="dense")
        assert identity(pruner="slim_dense", budget="macs=0.25") != identity(pruner="slim_dense")

    def test_a_budget_of_latency_belongs_to_a_device(self, monkeypatch: pytest.MonkeyPatch) -> None:
        here = identity(pruner="crop_s", budget="latency=0.5", device="cpu")
        macs = identity(pruner="crop_s", budget="macs=0.5", device="cpu")
        monkeypatch.setattr("harness.spec.describe_device", lambda device: "Abacus 1")
        assert identity(pruner="crop_s", budget="latency=0.5", device="cpu") != here
        assert identity(pruner="crop_s", budget="macs=0.5", device="cpu") == macs

    def test_a_run_has_a_sparsity_or_a_budget(self) -> None:
        complaint = refused(sparsity=0.9, budget="macs=0.5")
        assert complaint == "a run has a sparsity or a budget, not both: 0.9, macs=0.5"
