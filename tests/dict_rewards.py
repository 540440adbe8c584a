"""What the tests of engines with dicts of rewards share: the options of a run, and the groups of its batches."""

OPTIONS = {
    "method": "lift",
    "reward_keys": ["correct", "safe"],
    "reward_ranges": {"correct": [-3, 3]},
    "reward_weights": {"correct": 2.0},
}
GROUPS = [0, 0, 0, 0, 1, 1, 1, 1]
