"""``measure``: what finished networks cost on this machine, each alone on the device."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from harness.commands import options
from harness.errors import RequestError, warn
from harness.registry import Registry
from harness.results.summary import measured_line
from harness.signals import Stop
from harness.storage.store import Store

EXAMPLES = """\
examples:
  python -m harness measure
  python -m harness measure digits-crop_s --batch-sizes 1,64 --device cuda
  python -m harness measure --missing

Records are not changed. A measurement is stored beside the record of its run, one for each kind of
machine: the newest that no other work disturbed, or else the newest.
"""


def add_options(parser: argparse.ArgumentParser) -> None:
    """Add the options of the command."""
    parser.usage = f"{parser.prog} [RUN ...] [option ...]"
    parser.epilog = EXAMPLES
    parser.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help="a run's folder, the beginning of its name, or its hash (default: every run)",
    )
    parser.add_argument(
        "--missing",
        action="store_true",
        help="only networks that have not been measured yet",
    )
    parser.add_argument(
        "--batch-sizes",
        type=_batch_sizes,
        metavar="N,M",
        help="batch sizes to time, besides that of the recipe (default: 1,8,64)",
    )
    parser.add_argument(
        "--wait",
        type=options.seconds,
        metavar="SECONDS",
        help="how long to wait for an idle device (default: 60)",
    )
    options.add_device(parser)
    options.add_data(parser)
    options.add_results(parser)
    options.add_plugin(parser)
    options.add_json(parser, "also print all measurements as one array, as the last line")


def execute(arguments: argparse.Namespace) -> int:
    """Measure the runs one after the other; return 1 if one of them could not be measured."""
    store = Store(arguments.results)
    folders = [store.locate(name) for name in arguments.runs]
    folders = folders or [store.folder / run for run in store.run_ids()]
    if not folders:
        raise RequestError(store.why_empty("no run that is done"))
    registry, stop = Registry(arguments.plugin), Stop()
    measured: list[dict[str, Any]] = []
    code = 0
    with stop.listening():
        # Importing torch takes seconds, so the request is checked first.
        from harness.device import find_device
        from harness.engine.measurement import BATCH_SIZES, PATIENCE, measure_runs

        device = find_device(arguments.device)
        for folder, measurement, why_not in measure_runs(
            folders,
            registry,
            device,
            arguments.data,
            lambda line: print(line, file=sys.stderr, flush=True),
            stop,
            batch_sizes=arguments.batch_sizes or BATCH_SIZES,
            patience=PATIENCE if arguments.wait is None else arguments.wait,
            missing=arguments.missing,
        ):
            if measurement is not None:
                measured.append({"run_id": folder.name, **measurement})
                line = measured_line(measurement["cost"], device.type == "cuda")
                print(f"{folder.name}: {line}", flush=True)
            elif why_not:
                warn(f"{folder.name}: not measured: {why_not}")
                code = 1
    if arguments.json:
        print(json.dumps(measured))
    return code


def _batch_sizes(text: str) -> tuple[int, ...]:
    sizes = tuple(options.whole_number(part) for part in text.split(",") if part)
    if any(size < 1 for size in sizes):
        raise argparse.ArgumentTypeError(f"{text!r}: a batch has at least one sample")
    if len(set(sizes)) < len(sizes):
        raise argparse.ArgumentTypeError(f"{text!r} names a size twice")
    return sizes
