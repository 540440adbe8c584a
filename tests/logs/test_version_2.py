"""Records of version 2, as an older rvpo wrote them: what it called lift is lift_z now and gives its advantages."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from rvpo.core import AdvantageConfig
from rvpo.diagnose.diagnose import diagnose
from rvpo.diagnose.replay import replay
from rvpo.logs.open import open_run

RECORDS = Path(__file__).parent / "version_2"
METHOD_OF = {
    "lift": "lift_z:kappa=3,margin=0.1",
    "lift_default": "lift_z",
    "rubrics_lift": "lift_z",
    "rvpo": "rvpo:k=1,whiten=group",
}


def test_the_records_are_of_version_2_and_say_lift():
    for folder in RECORDS.iterdir():
        told = pq.read_metadata(folder / "channels" / "000001.parquet").metadata[b"rvpo.records"]
        assert b'"version": 2' in told
        assert (b'"name": "lift"' in told) == ("lift" in folder.name)


@pytest.mark.parametrize("name", METHOD_OF)
def test_its_own_method_gives_its_advantages(name: str):
    run = open_run(RECORDS / name)
    assert run.every_batch
    assert str(run.config) == METHOD_OF[name]
    assert diagnose(run).notes == ()
    again = replay(run, [AdvantageConfig("lift")])  # the rule of today is another one
    assert again.own == METHOD_OF[name]
    assert again.own_difference < 1e-12
    assert again.rules[0].largest_difference > 0.01
