"""The data that flows between environments, loops and algorithms. Axis letters: B slots, T time, P population."""

from typing import Any, NamedTuple

__all__ = [
    "Demonstrations",
    "Derivatives",
    "Linearisation",
    "Moments",
    "Returns",
    "Rollout",
    "Step",
    "Transitions",
    "Tried",
]


class Step(NamedTuple):
    """Result of one environment step, leading axis B (none for one slot of a JAX environment).

    `terminated` (the task ended: the successor's value is zero) and `truncated` (the clock ended: bootstrap) are never
    merged. `obs` is what to act on next, already reset where the episode ended and the environment was asked to reset;
    `next_obs` is the true successor, *never* a reset observation.
    """

    obs: Any
    reward: Any
    terminated: Any
    truncated: Any
    next_obs: Any
    measures: dict[str, Any]


class Rollout(NamedTuple):
    """Consecutive steps, leading axes T, B.

    `action` is what `act` returned, *in the algorithm's own numbers*: the task was sent it with its bounds restored.
    `extras` is what `act` returned beside the action, `carry` what each slot remembered before the first step (axis B).
    """

    obs: Any
    action: Any
    reward: Any
    terminated: Any
    truncated: Any
    next_obs: Any
    extras: Any
    carry: Any = ()


class Transitions(NamedTuple):
    """Transitions sampled from a replay, leading axis N: each a window of up to n steps of one slot.

    A window ends after n steps, at the end of its episode, or at the newest step, whichever comes first; m <= n is the
    number of its steps. The target of a value is `reward + discount * value(next_obs)`, for every n.

    Attributes:
        obs: acted on at the window's first step, (N, ...).
        action: taken there, in the algorithm's own numbers.
        reward: sum of gamma^j r_j over the window's steps, raw, float32.
        discount: gamma^m * (1 - terminated): zero where the task ended, gamma^m where only a clock did.
        next_obs: true successor of the window's last step, *never* a reset observation.
        terminated, truncated: of the window's last step.
        steps: m, int32.
        index: number of the first step in the replay, time * B + slot, int64; never used again for another step.
        weight: importance weight, 1 where sampling is uniform, float32.
        age: environment steps taken since, int64.
        next_action: what was done at `next_obs`, in the algorithm's own numbers; where the window ended its episode, or
            nothing was done there yet, the window's last action once more.
        return_to_go: discounted rewards from the first step to the end of its episode, raw, float32; -inf where that
            is not known, which is so for steps of an environment.
    """

    obs: Any
    action: Any
    reward: Any
    discount: Any
    next_obs: Any
    terminated: Any
    truncated: Any
    steps: Any
    index: Any
    weight: Any
    age: Any
    next_action: Any = ()
    return_to_go: Any = ()


class Moments(NamedTuple):
    """Count, mean and sum of squared deviations of vectors seen so far. See `workhorse.math.moments`."""

    count: Any
    mean: Any
    deviation: Any


class Returns(NamedTuple):
    """Earnings of a population: all that evolution strategies read, and all that a worker of a cluster is told.

    Four bytes a member and the moments of the observations, whatever the policy's size. A member's fitness is rounded
    to float32 where its episode ended (`ParameterSearch.fitness`), so that one process and many see the same bits.

    Attributes:
        fitness: what the search climbs, the mean over a member's episodes, float32, axis P.
        mean_length: mean steps of the population's episodes, float64.
        observations: moments of every observation acted on, merged in the order of the members, float64.
        behaviour: what the members' episodes were like, the mean over a member's, float16 (P, k); k is 0 for most.
    """

    fitness: Any
    mean_length: Any
    observations: Moments
    behaviour: Any = ()


class Demonstrations(NamedTuple):
    """What somebody did who knows the task: pairs of an observation and the action taken there, leading axis N.

    Attributes:
        obs: as the task gave it, (N, ...).
        action: in the algorithm's own numbers.
        is_there: False in rows that hold nothing yet, bool (N,).
    """

    obs: Any
    action: Any
    is_there: Any


class Linearisation(NamedTuple):
    """A task near one of its states: x' - x* = A (x - x*) + B (u - u*) and obs - obs* = C (x - x*).

    x is the physics of `Simulator`, u the action laid flat, *in the algorithm's own numbers*; of each choice among n it
    is a place from -1, the first, to 1, the last.

    Attributes:
        state_matrix: A, float64 (X, X).
        action_matrix: B, float64 (X, U).
        observation_matrix: C, float64 (D, X); rows of zeros for what is no smooth function of the physics.
        physics: x*, float64 (X,).
        obs: obs*, float64 (D,).
        action: u*, float64 (U,).
        drift: the most that a coordinate moves in one step from x* under u*: 0 where x* is an equilibrium, float64.
        reward: of that step, float64.
        env_steps: steps of the simulator that it took to find all this, int64.
    """

    state_matrix: Any
    action_matrix: Any
    observation_matrix: Any
    physics: Any
    obs: Any
    action: Any
    drift: Any
    reward: Any
    env_steps: Any


class Derivatives(NamedTuple):
    """Derivatives of a task along a plan of H steps, with respect to z = (x, u), physics and then the action laid flat.

    Attributes:
        state_matrix: of the physics after a step with respect to that before it, float64 (H, X, X).
        action_matrix: with respect to the action, *in the algorithm's own numbers*, float64 (H, X, U).
        reward_slope: of the step's reward, float64 (H, X + U).
        reward_curvature: its second derivatives, float64 (H, X + U, X + U).
    """

    state_matrix: Any
    action_matrix: Any
    reward_slope: Any
    reward_curvature: Any


class Tried(NamedTuple):
    """What became of N plans of H actions each, tried in copies of the task; leading axes N, H.

    A trial goes on past an end of the task, as the simulator does: whoever minds ends has `terminated` to tell them by.

    Attributes:
        reward: of each step, float64 (N, H); 0 from the step on in which a simulation broke.
        terminated: the step ended the task, (N, H); true from the step on in which a simulation broke.
        states: rows after the last step, float64 (N, S).
        next_obs: observation after each step, (N, H, ...); None where it was not asked for.
    """

    reward: Any
    terminated: Any
    states: Any
    next_obs: Any = None
