"""Records of version 3, as an older rvpo wrote them: its grpo left out what was missing, and is read as that."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from rvpo.core import AdvantageConfig
from rvpo.diagnose.replay import replay
from rvpo.logs.open import open_run

RECORDS = Path(__file__).parent / "version_3"
METHOD_OF = {
    "gdpo": "gdpo",
    "grpo": "grpo:unscored=left_out",
    "lift": "lift",
    "riskpo": "riskpo:bundle_size=2",
    "riskpo_grpo": "riskpo:bundle_size=2",
    "rubrics_lift": "lift",
}


def test_the_records_are_of_version_3():
    assert set(METHOD_OF) == {folder.name for folder in RECORDS.iterdir()}
    for folder in RECORDS.iterdir():
        told = pq.read_metadata(folder / "channels" / "000001.parquet").metadata[b"rvpo.records"]
        assert b'"version": 3' in told


@pytest.mark.parametrize("name", METHOD_OF)
def test_its_own_method_gives_its_advantages(name: str):
    run = open_run(RECORDS / name)
    assert str(run.config) == METHOD_OF[name]
    again = replay(run, [AdvantageConfig("grpo")])  # the grpo of today counts a missing reward as TRL does
    assert again.own_difference < 1e-12
    assert again.rules[0].largest_difference > 0.01
