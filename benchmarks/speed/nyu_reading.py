"""Reading the labelled frames of NYU Depth v2: speed beside plain h5py, and memory.

The file is made up here, of the official one's shape, size and format: 1,449 frames of 480x640 in
about 3 GB, a compressed chunk for each frame. Only a few frames differ, which no reader can tell.
"""

from __future__ import annotations

import tempfile
import zlib
from pathlib import Path

import h5py
import numpy as np

from benchmarks.measurement import Comparison, alternate, in_new_process
from tasks.nyu.augmentation import centre_crop
from tasks.nyu.data import HALF
from tasks.nyu.readers import HEIGHT, WIDTH, LabelledFrames

FRAMES, EPOCH, DIFFERENT = 1449, 795, 8
ROUNDS = 1
MEGABYTES = 300.0
"""Allowed resident memory of a process that reads an epoch, interpreter and libraries included."""


def measure() -> list[Comparison]:
    """Compare one epoch with plain reads of the same slices: at least 0.8 of their rate."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "frames.mat"
        write(path)
        frames = LabelledFrames(path)
        with h5py.File(path) as file:
            ours, plain = alternate(lambda: epoch(frames), lambda: plain_epoch(file), ROUNDS)
        resident = in_new_process(_resident, path)
    return [
        Comparison("NYU epoch / plain h5py", ours, plain, "s", 1 / 0.8),
        Comparison("NYU resident memory", resident, MEGABYTES, "MB", 1.0),
    ]


def epoch(frames: LabelledFrames) -> None:
    """Read what a network sees of each training frame, and its depth, in the network's layout."""
    for number in range(EPOCH):
        np.ascontiguousarray(centre_crop(frames.image(number)[HALF]))
        np.ascontiguousarray(centre_crop(frames.depth(number)[HALF]))


def plain_epoch(file: h5py.File) -> None:
    """Read the same slices and do nothing with them."""
    for number in range(EPOCH):
        file["images"][number]
        file["depths"][number]


def write(path: Path) -> None:
    """Write the file; each frame is compressed once, however often it is in it."""
    generator = np.random.default_rng(0)
    with h5py.File(path, "w", userblock_size=512) as file:
        for name, shape, dtype in (
            ("images", (3, WIDTH, HEIGHT), np.uint8),
            ("depths", (WIDTH, HEIGHT), np.float32),
        ):
            data = file.create_dataset(
                name, (FRAMES, *shape), dtype, chunks=(1, *shape), compression="gzip"
            )
            values = generator.normal(128, 60, (DIFFERENT, *shape)).clip(0, 255).astype(dtype)
            chunks = [zlib.compress(value.tobytes(), 1) for value in values]
            for number in range(FRAMES):
                chunk = chunks[number % DIFFERENT]
                data.id.write_direct_chunk((number, *(0 for _ in shape)), chunk)
        scene = file.create_dataset("scene", data=np.frombuffer(b"room", np.uint8).astype("u2"))
        file.create_dataset("scenes", data=np.full((1, FRAMES), scene.ref, h5py.ref_dtype))


def _resident(path: Path) -> float:
    """Return the most megabytes that a process holds which reads an epoch."""
    epoch(LabelledFrames(path))
    (line,) = (
        line
        for line in Path("/proc/self/status").read_text().splitlines()
        if line.startswith("VmHWM:")
    )
    return int(line.split()[1]) * 1024 / 1e6
