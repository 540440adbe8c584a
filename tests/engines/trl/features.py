"""What the installed TRL and transformers can do, where versions of the supported range differ.

Tests of a feature that is TRL's own are run where TRL has it.
"""

from __future__ import annotations

import dataclasses
import inspect

import trl.chat_template_utils
import trl.models.utils
from transformers import Trainer
from trl import GRPOConfig, GRPOTrainer
from trl.trainer import grpo_trainer

_OPTIONS = {field.name for field in dataclasses.fields(GRPOConfig)}
_SOURCE = inspect.getsource(GRPOTrainer)

ENTROPY_BONUS = "entropy_coef" in _OPTIONS
SEVERAL_ENVIRONMENTS = "_multi_environment" in _SOURCE
TOOLS = "response_template" in inspect.getsource(trl.chat_template_utils)
"""Whether TRL and transformers agree on how a call of a tool is read from a completion."""

MARKS_PICTURES = "strip_images_from_messages" in inspect.getsource(grpo_trainer)
"""Whether TRL's own record of completions shows where the pictures of a prompt were."""

STREAMS = "Iterable datasets are not yet supported" not in _SOURCE
CALLS_ASYNC_OBJECTS = "elif inspect.iscoroutinefunction(reward_func)" not in _SOURCE
"""Whether plain TRL awaits a reward that is an object with an asynchronous ``__call__``; RVPOTrainer always does."""

SWITCHES_CHECKPOINTING_ON_WITHOUT_OPTIONS = "gradient_checkpointing_enable()" in inspect.getsource(trl.models.utils)
"""Whether TRL itself does so after each generation."""

# Its map_location is then "cpu:0", which torch.load refuses.
RESUMES_ON_SEVERAL_CPUS = "map_location = self.args.device" not in inspect.getsource(
    Trainer._load_optimizer_and_scheduler
)
