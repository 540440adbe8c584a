"""The state of an :class:`~rvpo.step.aggregator.Aggregator` as a file in an engine's checkpoints."""

from __future__ import annotations

import json
import logging
from pathlib import Path

from rvpo.files import write
from rvpo.step.aggregator import Aggregator
from rvpo.step.old_states import of_this_version

logger = logging.getLogger(__name__)

FILE = "rvpo_state.json"
"""Name of the file in a checkpoint. It exists once the run has seen a batch."""


def save_memory(aggregator: Aggregator, folder: Path) -> None:
    """Write the state into a checkpoint's folder, if there is a state."""
    state, path = aggregator.state_dict(), folder / FILE
    if not any(state.get(key) for key in ("remembered", "evidence", "seen")):
        path.unlink(missing_ok=True)  # a file of an older run in the same folder
        return
    folder.mkdir(parents=True, exist_ok=True)
    write(path, json.dumps(state))


def load_memory(aggregator: Aggregator, folder: Path) -> None:
    """Continue from the file that :func:`save_memory` wrote.

    If the file is absent, or of another method or of other ranges, the state starts empty, with a warning.
    """
    path, method = folder / FILE, aggregator.config.method
    if not path.exists():
        if method.remembers:
            logger.warning("There is no %s: method %r begins anew.", path, method.name)
        return
    state = of_this_version(json.loads(path.read_text("utf-8")), method)
    if state["method"] != method.name:
        logger.warning("%s is what method %r remembered; method %r begins anew.", path, state["method"], method.name)
        state = {**state, "method": method.name, "remembered": {}}
    elif changed := aggregator.changed_ranges(state):
        logger.warning(
            "%s: %s. The state of method %r is in units of the old ranges, so it begins anew. To continue with it, "
            "resume with the old ranges.",
            path,
            "; ".join(changed),
            method.name,
        )
        state = {**state, "remembered": {}}
    aggregator.load_state_dict(state)
