"""``measure``: what finished networks cost on this machine, each alone on the device."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping
from typing import Any

from harness.commands import options
from harness.errors import RequestError, RunFailed, warn
from harness.registry import Registry
from harness.results.summary import disturbance
from harness.signals import Stop
from harness.storage.store import Store
from harness.text import number

EXAMPLES = """\
examples:
  python -m harness measure
  python -m harness measure digits-crop_s --batch-sizes 1,64 --device cuda

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
        "--batch-sizes",
        type=_batch_sizes,
        default=(1, 8, 64),
        metavar="N,M",
        help="batch sizes to time, besides that of the recipe (default: 1,8,64)",
    )
    parser.add_argument(
        "--wait",
        type=options.seconds,
        default=60.0,
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
    with stop.listening():
        # Importing torch takes seconds, so the request is checked first.
        from harness.device import find_device
        from harness.engine.measurement import measure_run

        device = find_device(arguments.device)
        for folder in folders:
            try:
                measurement = measure_run(
                    folder,
                    Store(folder.parent).find(folder.name),
                    registry,
                    device,
                    arguments.batch_sizes,
                    arguments.data,
                    arguments.wait,
                    lambda line: print(line, file=sys.stderr, flush=True),
                    stop,
                )
            except (RequestError, RunFailed) as error:
                warn(f"{folder.name}: not measured: {error}")
                continue
            measured.append({"run_id": folder.name, **measurement})
            print(
                f"{folder.name}: {_costs(measurement['cost'], device.type == 'cuda')}", flush=True
            )
    if arguments.json:
        print(json.dumps(measured))
    return 0 if len(measured) == len(folders) else 1


def _costs(cost: Mapping[str, Any], on_gpu: bool) -> str:
    """Return the times in a line, and what disturbed them."""
    line = f"step {number(cost['step_ms'])} ms, inference {number(cost['inference_ms'])} ms"
    if of_one := cost.get("by_batch_size", {}).get("1", {}).get("inference_ms"):
        line += f", single-sample inference {number(of_one)} ms"
    if cost.get("disturbed"):
        line += f" (disturbed: {disturbance(cost, on_gpu)})"
    return line


def _batch_sizes(text: str) -> tuple[int, ...]:
    sizes = tuple(options.whole_number(part) for part in text.split(",") if part)
    if any(size < 1 for size in sizes):
        raise argparse.ArgumentTypeError(f"{text!r}: a batch has at least one sample")
    if len(set(sizes)) < len(sizes):
        raise argparse.ArgumentTypeError(f"{text!r} names a size twice")
    return sizes
