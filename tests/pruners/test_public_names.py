"""Plug-ins import these names."""

from __future__ import annotations

import importlib

import pytest

NAMES = {
    "pruners.activations": "wanda ria SparseGPT",
    "pruners.criteria": "random magnitude snip grasp crop synflow lamp HTS lamp_shares "
    "hessian_gradient hessian_diagonal",
    "pruners.functional_criteria": "Force ProsPr NTKSAP",
    "pruners.weights": "Weights",
    "pruners.triggers": "LazyRegime AtEpoch MaskDistance lazy_regime at_epoch mask_distance",
    "pruners.schedules": "cubic_sparsity equal_parts halving_steps geometric_steps",
    "pruners.distributions": "whole_network per_layer PerOutput erdos_renyi_kernel uniform_plus "
    "isomorphic number_to_keep",
    "pruners.patterns": "best left_by misfits",
    "pruners.training": "L1 GroupSparsity SmallestFilters SparseForward SquaredTaylor Taylor l1 "
    "taylor norm_scales norms_and_head",
    "pruners.channels": "ChannelCosts ChannelGraph ChannelGroup Gates Keep Member Rule Site "
    "UnknownOperation channel_costs compose declare_channels masked shrink trace_channels "
    "verify_shrink",
    "pruners.channels.criteria": "filter_norm filter_magnitude relative_filter_magnitude "
    "filter_distance filter_lamp group_norm norm_scale crop_mixed crop_on_gates "
    "BeforeNormalisation",
    "pruners.channels.units": "Channels",
    "pruners.channels.rules": "rule function_rule",
}


@pytest.mark.parametrize("module", NAMES)
def test_a_module_offers_its_names(module: str) -> None:
    offered = importlib.import_module(module)
    assert [name for name in NAMES[module].split() if not hasattr(offered, name)] == []


@pytest.mark.parametrize(
    ("module", "name", "other"),
    [
        ("pruners.triggers", "lazy_regime", "LazyRegime"),
        ("pruners.triggers", "at_epoch", "AtEpoch"),
        ("pruners.triggers", "mask_distance", "MaskDistance"),
        ("pruners.training", "l1", "L1"),
        ("pruners.training", "taylor", "Taylor"),
    ],
)
def test_both_names_are_one_class(module: str, name: str, other: str) -> None:
    offered = importlib.import_module(module)
    assert getattr(offered, name) is getattr(offered, other)
