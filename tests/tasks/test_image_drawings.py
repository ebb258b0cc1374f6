"""The drawings: what they show, and that they never change."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest

from tasks.images.drawings import SHAPES, VERSION, draw


def grid(size: int = 201) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
    """Return coordinates from -1.2 to 1.2."""
    line = np.linspace(-1.2, 1.2, size, dtype=np.float32)
    return line[None, :], line[:, None]


@pytest.mark.parametrize(
    ("name", "area"),
    [
        ("disc", np.pi),
        ("ring", np.pi * (1 - 0.5**2)),
        ("triangle", 3 * np.sqrt(3) / 4),
        ("square", 2.0),
        ("star", np.sqrt(3)),
        ("bar", 2 * 0.6),
        ("cross", 2 * 2 * 0.6 - 0.6**2),
    ],
)
def test_a_shape_has_the_area_that_geometry_gives_it(name: str, area: float) -> None:
    """All have their corners, or their edge, at a distance of 1 from the middle."""
    inside = SHAPES[name](*grid()) > 0
    assert inside.mean() * 2.4**2 == pytest.approx(area, rel=0.03)


def test_no_two_shapes_are_alike_in_any_direction() -> None:
    """By how much of the circle at some distances from the middle is covered."""
    angles = np.linspace(0, 2 * np.pi, 360, endpoint=False, dtype=np.float32)
    profiles = {
        name: [float((shape(r * np.cos(angles), r * np.sin(angles)) > 0).mean()) for r in RADII]
        for name, shape in SHAPES.items()
    }
    for name, profile in profiles.items():
        for other in profiles:
            if other != name:
                assert np.abs(np.subtract(profile, profiles[other])).max() > 0.1, (name, other)


RADII = (0.2, 0.4, 0.6, 0.8, 0.95)


@pytest.mark.parametrize(("classes", "size"), [(10, 32), (100, 32), (200, 64)])
def test_images_have_the_official_format_and_all_classes(classes: int, size: int) -> None:
    images, labels = draw(2 * classes, classes, size, 0.1, seed=0)
    assert images.shape == (2 * classes, 3, size, size)
    assert images.dtype == np.dtype(np.uint8)
    assert labels.dtype == np.dtype(np.int64)
    assert np.bincount(labels).tolist() == [2] * classes


def test_a_seed_gives_its_images_again_and_another_seed_none_of_them() -> None:
    first, labels = draw(100, 10, 32, 0.1, seed=0)
    again, same_labels = draw(100, 10, 32, 0.1, seed=0)
    other, _ = draw(100, 10, 32, 0.1, seed=1)
    assert np.array_equal(first, again)
    assert np.array_equal(labels, same_labels)
    kept = {image.tobytes() for image in first} & {image.tobytes() for image in other}
    assert not kept


def test_the_drawings_of_this_version_never_change() -> None:
    """Published results were measured on these: a change raises the version."""
    assert VERSION == 1
    images, labels = draw(200, 200, 64, 0.15, seed=0)
    assert labels[:8].tolist() == [105, 6, 168, 90, 65, 159, 71, 165]
    assert images[:4].mean((1, 2, 3)) == pytest.approx([120.98, 83.86, 110.56, 93.27], abs=0.05)


def test_the_colour_is_the_class_where_there_are_a_hundred() -> None:
    """Of plain discs: class 0 is red, class 30 green, class 70 blue; seen in the middle."""
    images, labels = draw(2000, 100, 32, 0.0, seed=0)
    for label, channel in ((0, 0), (30, 1), (70, 2)):
        middles = images[labels == label][:, :, 14:18, 14:18].mean((0, 2, 3))
        assert middles.argmax() == channel


def test_striped_objects_are_the_second_half_of_two_hundred() -> None:
    """Seen as contrast within discs, without noise."""
    images, labels = draw(2000, 200, 64, 0.0, seed=0)
    middles = images[labels % 10 == 0][:, :, 26:38, 26:38].astype(float)
    contrast = middles.max(1).std((1, 2)) / middles.max(1).mean((1, 2))
    striped = labels[labels % 10 == 0] >= 100
    assert contrast[striped].mean() > 3 * contrast[~striped].mean()
