"""What a run learns from beside its own experience: a log, an expert."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

__all__ = ["Sources"]


@dataclass(frozen=True)
class Sources:
    """Part of a run's plan; plain JSON.

    Attributes:
        use: `offline` learns from the log alone, in updates, without an environment; `mixed` acts in the task and draws
            a share of each batch from the log; `imitate` asks the expert what to do.
        log: path of the log; empty for none.
        log_digest: SHA-256 of its columns, so that a run goes on with no other.
        expert: path of a run folder, or the name of an algorithm that knows the task without learning; empty for none.
        expert_digest: SHA-256 of the expert's policy; empty for an algorithm.
        evaluate: whether the task can be acted in, so that the policy can be judged.
        held_out: share of the log's episodes that are only measured on.
        updates_per_iteration: updates of an iteration of `offline`, in one program.
        begun_from: the run whose newest state this one began with; empty for none.
    """

    use: Literal["offline", "mixed", "imitate"]
    log: str = ""
    log_digest: str = ""
    expert: str = ""
    expert_digest: str = ""
    evaluate: bool = True
    held_out: float = 0.05
    updates_per_iteration: int = 1000
    begun_from: str = ""
