"""The one interface: pure functions that turn experience into a better actor."""

from typing import Any, ClassVar, Protocol, TypeVar

from jaxtyping import Array, Int, PRNGKeyArray

from workhorse.core.spec import EnvSpec

__all__ = ["Algorithm", "Key"]

Key = PRNGKeyArray

State = TypeVar("State")
Actor = TypeVar("Actor")
Carry = TypeVar("Carry")
Experience = TypeVar("Experience", contravariant=True)


class Algorithm(Protocol[State, Actor, Carry, Experience]):
    """Pure functions over one seed and one slot; the loop maps them.

    The object is its own configuration: float fields are pytree leaves (so they can be swept with `vmap`), all else is
    static. No environment, file, clock, seed axis or cluster is ever seen here.

    `init` makes the learner's whole state. `actor` is the part of it that acting needs, and all a worker is sent.
    `begin` prepares one slot for an episode: the perturbed parameters of a member for ES (a negative member is the
    unperturbed policy), zeros for a recurrent net, a warm start for a planner. `act` chooses one action. `update` folds
    experience, of the type `consumes`, into the state, and reports metrics.
    """

    spec: EnvSpec
    consumes: ClassVar[type]

    def init(self, key: Key) -> State: ...

    def actor(self, state: State) -> Actor: ...

    def begin(self, actor: Actor, slot: Int[Array, ""]) -> Carry: ...

    def act(self, actor: Actor, carry: Carry, obs: Array, key: Key, *, explore: bool) -> tuple[Array, Carry, Any]: ...

    def update(self, state: State, experience: Experience, key: Key) -> tuple[State, dict[str, Array]]: ...
