"""Intervals and tests: what is signal, and what is noise.

**Items.** The items of a benchmark are taken for a sample of those that could have been asked. Several epochs of an
item are one cluster: they are averaged first, and the items are what is resampled, flipped and counted. n items, R
runs::

    mean_interval         of one run's mean
    difference_interval   of mean(B - A) on common items
    sign_flip, mcnemar    p of "B is as good as A", two-sided;  holm: of several such p
    over_seeds            the same for methods that were trained several times: over items and seeds
    needed_items          how many items would tell a difference
    pass_at_k             of one item that was sampled several times
    paired, rescaled      the differences that these take, and the weights of items where others are missing

Scores are taken as they are. A benchmark that clips its *mean* (HealthBench, at 0) is tested on unclipped items: a
clipped mean is no mean of items, and two models below the clip would look alike. What each of them is worth at 20, 60,
198 and 1,000 items: ``benchmarks/evals/calibration.py``.

**Runs.** One number a run, for R_a runs of one method and R_b of another; the runs are a sample of training seeds.
Where the seeds are the same they are pairs, and the test is sign_flip; else it is permutation::

    permutation           p of "which method a run has makes no difference"
    smallest_p            the smallest p that so many runs can give
    runs_interval         of the difference of means: Welch's, or that of Student's t on pairs
    hedges_g              the difference in standard deviations of runs
    seeds_for_level       how many seeds a test needs to reach a level at all
    needed_seeds          how many would probably tell a difference of the size seen

What these are worth at 3, 5 and 8 runs: ``benchmarks/reports/compare_calibration.py``.
"""

from rvpo.statistics.base import LEVEL, RESAMPLES, Array, Interval, alike, paired
from rvpo.statistics.intervals import difference_interval, mean_interval, rescaled
from rvpo.statistics.pass_at_k import pass_at_k
from rvpo.statistics.pvalues import holm, mcnemar, permutation, sign_flip, smallest_p
from rvpo.statistics.seeds import OverSeeds, hedges_g, over_seeds, runs_interval
from rvpo.statistics.sizes import needed_items, needed_seeds, seeds_for_level

__all__ = [
    "LEVEL",
    "RESAMPLES",
    "Array",
    "Interval",
    "OverSeeds",
    "alike",
    "difference_interval",
    "hedges_g",
    "holm",
    "mcnemar",
    "mean_interval",
    "needed_items",
    "needed_seeds",
    "over_seeds",
    "paired",
    "pass_at_k",
    "permutation",
    "rescaled",
    "runs_interval",
    "seeds_for_level",
    "sign_flip",
    "smallest_p",
]
