"""Pictures of the samples that a page shows. Each is scaled down, encoded again, and stored once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rvpo.logs.run import Run
from rvpo.pictures import data_uri, recorded_path

SIDE = 384  # pixels of the longest side
MOST = 40_000  # characters of one picture


def pictures_of(run: Run, samples: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return ``data:`` URLs by digest for the pictures of a run's samples. Pictures without a file are left out."""
    if run.pictures is None:
        return {}
    wanted = dict.fromkeys(name for sample in samples for name in sample.get("pictures", ()) if name)
    paths = {name: recorded_path(run.pictures, name) for name in wanted}
    found = {name: data_uri(path, SIDE, MOST) for name, path in paths.items() if path is not None}
    return {name: address for name, address in found.items() if address is not None}
