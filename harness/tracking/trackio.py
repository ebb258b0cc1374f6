"""Trackio: a database in the results folder, unless ``TRACKIO_DIR`` names another folder.

``TRACKIO_DIR=results/tracking/trackio trackio show`` shows it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from harness.tracking.tracker import PROJECT, TrackedRun


class Trackio:
    """A run of a project, found again by its name."""
