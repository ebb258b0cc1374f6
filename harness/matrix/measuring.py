"""Measuring the networks of a matrix after all training, one at a time, alone on the machine."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from harness.errors import Interrupted, RequestError
from harness.matrix.dispatch import Tally
from harness.registry import Registry
from harness.results.summary import measured_line
from harness.signals import Stop
from harness.text import several


def measure_networks(
    folders: Sequence[Path],
    tally: Tally,
    *,
    plugins: Sequence[Path],
    data: Path,
    device: str,
    threads: int | None,
    progress: TextIO | None,
) -> None:
    """Measure networks, and note in a tally which are measured and why others are not.

    Args:
        folders: of the runs.
        tally: of all runs of the matrix.
        plugins: plug-in files of the runs.
        data: folder that tasks read data from.
        device: where to measure, as ``--device`` takes it.
        threads: of torch; None for its default.
        progress: a stream for lines of progress; None for none.
    """

    def report(line: str) -> None:
        if progress is not None:
            print(line, file=progress, flush=True)

    report(f"measuring {several(len(folders), 'network')}, one at a time")
    stop = Stop()
    try:
        with stop.listening():
            # Importing torch takes seconds, and a matrix that is measured does not need it.
            import torch

            from harness.device import find_device
            from harness.engine.measurement import measure_runs

            place = find_device(device)
            if threads is not None:
                torch.set_num_threads(threads)
            results = measure_runs(
                folders, Registry(plugins), place, data, report, stop, missing=True
            )
            for number, (folder, measurement, why_not) in enumerate(results, 1):
                if why_not:
                    tally.not_measured[folder.name] = why_not
                    ending = f"not measured: {why_not}"
                else:
                    tally.unmeasured.discard(folder.name)
                    ending = "measured by another process"
                if measurement is not None:
                    ending = measured_line(measurement["cost"], place.type == "cuda")
                report(f"[{number}/{len(folders)}] {folder.name} {ending}")
    except Interrupted:
        tally.measuring_interrupted = True
    except RequestError as error:  # this machine has no such device
        tally.not_measured |= {folder.name: str(error) for folder in folders}
