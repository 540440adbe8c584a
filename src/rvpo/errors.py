"""The exception tree: one class for each boundary of the package.

Every failure that rvpo raises on purpose is an :class:`RVPOError`. Its message has three parts: the value that was
seen, the expected values, and the next step. Each subclass belongs to one boundary:

    RVPOError
    ├── ConfigError    an option, recipe or combination of options cannot work (raised when it is built)
    │   └── MissingExtraError    a package of an extra is not installed
    ├── DataError      a dataset row or file is malformed (names the file, the row and the field)
    ├── RewardError    a reward matrix cannot be aggregated (wrong shape, infinite value, refused missing value)
    ├── JudgeError     a judge cannot work at all (no server, no such model), or too many verdicts are missing
    ├── ModelError     a model under evaluation cannot be loaded or queried
    └── EngineError    the training engine is not installed, or does not behave as the adapter expects

A single value that could not be *scored* is not an error. It is missing (NaN), see ``rvpo.core.normalize``.
"""


class RVPOError(Exception):
    """Base of every error that rvpo raises on purpose."""


class ConfigError(RVPOError, ValueError):
    """An option or a combination of options that cannot work."""


class MissingExtraError(ConfigError, ImportError):
    """A package of an extra is not installed. It is also an ImportError, for scripts that can work without."""


class DataError(RVPOError, ValueError):
    """A dataset, file or row that does not have the expected layout."""


class RewardError(RVPOError, ValueError):
    """A reward matrix that cannot be aggregated."""


class JudgeError(RVPOError, RuntimeError):
    """A judge that cannot work at all, or too many missing verdicts."""


class ModelError(RVPOError, RuntimeError):
    """A model under evaluation that cannot be loaded, or whose server does not answer."""


class EngineError(RVPOError, RuntimeError):
    """A training engine that is not installed, or does not behave as the adapter expects."""
