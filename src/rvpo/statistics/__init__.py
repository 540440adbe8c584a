"""Confidence intervals and tests that separate signal from noise.

**Items.** The items of a benchmark are treated as a sample of the items that it could have contained. Several epochs of
an item form one cluster: they are averaged first. Items are what is resampled, flipped and counted. For n items and R
runs::

    mean_interval         interval of one run's mean
    difference_interval   interval of mean(B - A) on common items
    sign_flip, mcnemar    two-sided p value of "B is as good as A"
    holm                  p values adjusted for several tests
    over_seeds            mean or difference of methods that were trained several times, over items and seeds
    needed_items          number of items that a test needs to detect a difference
    pass_at_k             Pass@k of one item that was sampled several times
    paired                differences B - A, the input of the functions above
    rescaled              weights of the scored items where other items are missing

Scores are not clipped. A benchmark that clips its *mean* (HealthBench clips it at 0) is tested on unclipped items: a
clipped mean is not a mean over items, and two models below the clip would look equal. How well these functions are
calibrated at 20, 60, 198 and 1,000 items: ``benchmarks/evals/calibration.py``.

**Runs.** One number per run, for R_a runs of one method and R_b of another. The runs are a sample of training seeds.
If both methods have the same seeds, the runs are pairs and the test is sign_flip. Otherwise it is permutation::

    permutation           two-sided p value of "the method makes no difference to a run"
    smallest_p            the smallest p value that this number of runs can give
    runs_interval         interval of the difference of means: Welch's, or Student's t on pairs
    hedges_g              the difference in standard deviations of runs
    seeds_for_level       number of seeds with which a test can reach a level at all
    needed_seeds          number of seeds that would probably detect a difference of the observed size

How well they are calibrated at 3, 5 and 8 runs: ``benchmarks/reports/compare_calibration.py``.
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
