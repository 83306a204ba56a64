"""Ask and tell: the evolution strategies of Workhorse on any function, without a task.

    import workhorse.evolution as evolution

    es = evolution.make("snes", size=10, population_size=20)
    state = es.init(seed=0)
    for _ in range(100):
        state, candidates = es.ask(state)             # (20, 10), float32
        state = es.tell(state, [-sum(x**2) for x in candidates])
    point, fitness = es.best(state)

*Fitness is maximised.* The classes are those that `workhorse train` uses; what is different is where the fitness comes
from, and that the perturbations of a generation are held from `ask` to `tell` instead of being drawn twice.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.typing import ArrayLike
from jaxtyping import Array, Float, Int

from workhorse.algorithms import registry
from workhorse.algorithms.evolution.gaussian_search import GaussianSearch
from workhorse.algorithms.evolution.search import ParameterSearch
from workhorse.algorithms.settings import check_names
from workhorse.api.objective import Bounds, bounds_of, key_of, middle, numbers, require_fitness, whole_number
from workhorse.core.algorithm import Key
from workhorse.core.errors import UsageError
from workhorse.core.spec import Box, Discrete, EnvSpec
from workhorse.core.types import Returns
from workhorse.math import moments, noise

__all__ = ["Found", "AskTell", "AskTellState", "make", "maximise"]

OF_EPISODES = ("lag", "steps_per_iteration", "max_pairs", "adaptive_episode_cap", "perturbation_rank")
"""Options of algorithms that mean nothing without a task; those of `ParameterSearch` do not either."""


class AskTellState(NamedTuple):
    """State of a search: a pytree of arrays, which may be saved, copied, or carried through `jax.lax.scan`.

    Attributes:
        learner: state of the algorithm.
        held: perturbations of the generation that was asked for last, (N, m).
        asked: number of that generation, -1 before the first.
        best, best_fitness: the best candidate that was told of.
    """

    learner: Any
    held: Float[Array, "N m"]
    asked: Int[Array, ""]
    best: Float[Array, "n"]
    best_fitness: Float[Array, ""]


class Found(NamedTuple):
    """What `maximise` found.

    Attributes:
        mean: centre of the search at the end, (n,). *Where the function is noisy, this is the answer.*
        best: the best candidate of all, (n,), and `fitness`, what the function said of it.
        history: best and mean fitness of each generation, (G, 2), NaN left out.
        state: of the search, to go on with.
    """

    mean: np.ndarray
    best: np.ndarray
    fitness: float
    history: np.ndarray
    state: AskTellState


def make(algorithm: str, *, size: int, bounds: tuple[ArrayLike, ArrayLike] | None = None, **settings: Any) -> "AskTell":
    """Return an evolution strategy over vectors of `size` numbers.

    Args:
        algorithm: its name, such as "pgpe", "snes", "sep-cma-es", "ma-es", "lm-ma-es", "openai-es".
        size: number of parameters n.
        bounds: (low, high), each a number or (n,). Candidates are clipped to them, and so is the centre. *SciPy has a
            pair for each parameter instead.*
        settings: options of the algorithm by name; `workhorse algorithms NAME` lists them.

    Raises:
        UsageError: something given cannot be used.

    Example:
        >>> es = make("snes", size=3, population_size=8, bounds=(-1, 1))
        >>> state, candidates = es.ask(es.init(0))
        >>> candidates.shape, es.population_size
        ((8, 3), 8)
    """
    size = whole_number(size, "The size of evolution.make, the number of parameters,")
    cls = registry.algorithm_class(str(algorithm))
    if not _is_able(cls):
        able = sorted(name for name in registry.entries() if _is_able(registry.algorithm_class(name)))
        raise UsageError(
            f"evolution.make needs an algorithm that searches around a centre: got {algorithm}. Take {', '.join(able)}."
        )
    of_policies = {field.name for field in dataclasses.fields(ParameterSearch)} | set(OF_EPISODES)
    for name in settings:
        if name in of_policies:
            raise UsageError(f"{algorithm}.{name} is for policies and their episodes. Leave it out of evolution.make.")
        if name.startswith(("minimi", "maximi", "direction")):
            raise UsageError(f"{name} is no option: fitness is maximised. To minimise, return its negative.")
    check_names(algorithm, settings)
    # a linear policy from one observation to `size` choices has just `size` parameters
    spec = EnvSpec("objective", Box.unbounded(1), Discrete(size), 1)
    made = registry.make(algorithm, spec, {"normalise_observations": False, **settings})
    assert isinstance(made, GaussianSearch)
    return AskTell(made, None if bounds is None else bounds_of(bounds, size))


class AskTell:
    """An evolution strategy whose fitness the caller computes. Made by `make`.

    Attributes:
        algorithm: the algorithm, with its settings.
        size: number of parameters n.
        population_size: candidates of a generation, P.
    """

    def __init__(self, algorithm: GaussianSearch, bounds: Bounds | None) -> None:
        self.algorithm = algorithm
        self.size = algorithm.num_params
        self.population_size = algorithm.num_members
        self._bounds = bounds
        self._num_held = int(algorithm.perturbation_of(jnp.asarray(algorithm.num_members - 1))) + 1
        self._like = jax.eval_shape(algorithm.init, jax.random.key(0))
        self._ask, self._tell = jax.jit(self._asked), jax.jit(self._told)

    def init(self, seed: int | Key = 0, *, start: ArrayLike | None = None) -> AskTellState:
        """Return the state before the first generation.

        Args:
            seed: a number, which may be traced, or a JAX key.
            start: the centre, (n,) or one number; where left out, the middle of the bounds, or 0.
        """
        if start is None:
            start = 0.0 if self._bounds is None else middle(*self._bounds)
        centre = numbers(start, "start").astype(np.float32)
        if centre.shape not in ((), (self.size,)) or not np.isfinite(centre).all():
            raise UsageError(
                f"start must be {self.size} finite numbers or one: got shape {centre.shape}, "
                f"{(~np.isfinite(centre)).sum()} of them not finite."
            )
        centre = np.broadcast_to(centre, self.size)
        if self._bounds is not None and (np.clip(centre, *self._bounds) != centre).any():
            raise UsageError("start must lie within the bounds, but does not. Move it, or widen the bounds.")
        learner = self.algorithm.init(key_of(seed))._replace(params=jnp.asarray(centre))
        held = jnp.zeros((self._num_held, self.algorithm.num_drawn), jnp.float32)
        return AskTellState(learner, held, jnp.int32(-1), jnp.asarray(centre), jnp.float64(-jnp.inf))

    def ask(self, state: AskTellState) -> tuple[AskTellState, Float[Array, "P n"]]:
        """Return the state, and the candidates of its generation, float32.

        Raises:
            UsageError: the state is of another search.
        """
        self._require_own(state)
        return self._ask(state)

    def tell(self, state: AskTellState, fitness: ArrayLike) -> AskTellState:
        """Return the state after learning from the fitness of the candidates asked for last, in their order.

        Args:
            state: from `ask`.
            fitness: one number a candidate, (P,), the higher the better. NaN is worse than everything.

        Raises:
            UsageError: wrong shape, no real numbers, every one is NaN, or nothing was asked for. *Only the shape is
                checked where the fitness is traced, as inside `jax.jit`.*
        """
        self._require_own(state)
        shape = np.shape(fitness)
        if shape != (self.population_size,):
            raise UsageError(
                f"tell needs one fitness for each of {self.population_size} candidates, of shape "
                f"({self.population_size},): got shape {shape}."
            )
        if not isinstance(fitness, Tracer) and not isinstance(state.asked, Tracer):
            given = np.asarray(fitness)
            if given.dtype.kind not in "biuf":
                raise UsageError(f"tell needs real numbers: got {given.dtype} ({given[0]!r}). Mend the objective.")
            if np.isnan(given).all():
                raise UsageError("tell needs a number among the fitness, but every one is NaN. Mend the objective.")
            if int(state.asked) != int(state.learner.iteration):
                raise UsageError("tell needs a state from ask that was not told of yet: got another one. Ask first.")
        return self._tell(state, jnp.asarray(fitness, jnp.float64))

    def mean(self, state: AskTellState) -> Float[Array, "n"]:
        """Return the centre of the search."""
        return state.learner.params

    def best(self, state: AskTellState) -> tuple[Float[Array, "n"], Float[Array, ""]]:
        """Return the best candidate so far and its fitness; the start and -inf before the first."""
        return state.best, state.best_fitness

    def _require_own(self, state: AskTellState) -> None:
        """Raise a `UsageError` where a state is of a search of another algorithm, size or population."""
        held = (self._num_held, self.algorithm.num_drawn)
        if (
            not isinstance(state, AskTellState)
            or jax.tree.structure(state.learner) != jax.tree.structure(self._like)
            or [np.shape(leaf) for leaf in jax.tree.leaves((state.learner, state.held))]
            != [*(leaf.shape for leaf in jax.tree.leaves(self._like)), held]
        ):
            raise UsageError(
                f"The state is none of this search ({self.algorithm.name}, {self.size} parameters, "
                f"{self.population_size} candidates): take the one that its own init, ask or tell returned."
            )

    def _asked(self, state: AskTellState) -> tuple[AskTellState, Float[Array, "P n"]]:
        key, length = self.algorithm.noise_key(state.learner), self.algorithm.num_drawn
        held = jax.vmap(lambda index: noise.perturbation(key, index, length))(jnp.arange(self._num_held))
        # members of one perturbation have consecutive numbers; looking each up cost a quarter of the drawing
        eps = jnp.repeat(held, self.population_size // self._num_held, axis=0)
        actor, members = self.algorithm.actor(state.learner), jnp.arange(self.population_size)
        candidates = jax.vmap(lambda member, eps: self.algorithm.placed(actor, member, eps))(members, eps)
        return state._replace(held=held, asked=state.learner.iteration), self._inside(candidates)

    def _candidate(self, state: AskTellState, member: Int[Array, ""]) -> Float[Array, "n"]:
        eps = state.held[self.algorithm.perturbation_of(member)]
        return self._inside(self.algorithm.placed(self.algorithm.actor(state.learner), member, eps))

    def _told(self, state: AskTellState, fitness: Float[Array, "P"]) -> AskTellState:
        learner = state.learner
        told = Returns(fitness, jnp.float64(1), moments.empty(1, jnp.float64))
        weights = self.algorithm.weights(learner, told)
        after, _ = self.algorithm.move(learner, told, _sums(state.held, weights))
        known = jnp.where(jnp.isnan(fitness), -jnp.inf, fitness)
        winner = jnp.argmax(known)
        is_better = known[winner] > state.best_fitness
        return AskTellState(
            after._replace(params=self._inside(after.params)),
            state.held,
            state.asked,
            jnp.where(is_better, self._candidate(state, winner), state.best),
            jnp.where(is_better, known[winner], state.best_fitness),
        )

    def _inside(self, params: Float[Array, "*P n"]) -> Float[Array, "*P n"]:
        return params if self._bounds is None else jnp.clip(params, *self._bounds)


def maximise(
    function: Callable[..., Any],
    algorithm: str = "snes",
    *,
    size: int,
    generations: int,
    batched: bool = False,
    jit: bool = False,
    seed: int | Key = 0,
    start: ArrayLike | None = None,
    bounds: tuple[ArrayLike, ArrayLike] | None = None,
    **settings: Any,
) -> Found:
    """Maximise a function of `size` numbers.

    Args:
        function: from a candidate (n,) to its fitness, a number; with `batched`, from (P, n) to (P,).
        algorithm: name of the evolution strategy.
        size: number of parameters n.
        generations: how often the population is asked for and told of.
        batched: whether the function takes all candidates of a generation at once.
        jit: *whether the function is made of JAX operations only*. Then all generations are one compiled program, and
            a function that is not batched is mapped over the candidates. Otherwise it is called with NumPy arrays.
        seed: as for `AskTell.init`.
        start: as for `AskTell.init`.
        bounds: as for `make`.
        settings: as for `make`.

    Raises:
        UsageError: something given cannot be used, or the function returned a wrong shape or nothing but NaN.

    Example:
        >>> found = maximise(lambda x: -jnp.sum((x - 2) ** 2), size=3, generations=150, jit=True)
        >>> found.mean.round(3).tolist(), found.fitness > -1e-6
        ([2.0, 2.0, 2.0], True)
    """
    generations = whole_number(generations, "The generations of evolution.maximise")
    es = make(algorithm, size=size, bounds=bounds, **settings)
    state = es.init(seed, start=start)
    state, history = (_compiled if jit else _one_by_one)(es, state, function, batched, generations)
    return Found(
        np.asarray(es.mean(state)), np.asarray(state.best), float(state.best_fitness), np.asarray(history), state
    )


def _compiled(
    es: AskTell, state: AskTellState, function: Callable[..., Any], batched: bool, generations: int
) -> tuple[AskTellState, Array]:
    """All generations as one program; also the best and the mean fitness of each, (generations, 2)."""
    judge = function if batched else jax.vmap(function)
    points = jax.ShapeDtypeStruct((es.population_size, es.size), jnp.float32)
    require_fitness(jax.eval_shape(judge, points), es.population_size)

    def generation(state: AskTellState, _: None) -> tuple[AskTellState, Array]:
        state, candidates = es.ask(state)
        fitness = jnp.asarray(judge(candidates), jnp.float64)
        return es.tell(state, fitness), jnp.stack([jnp.nanmax(fitness), jnp.nanmean(fitness)])

    state, history = jax.jit(lambda state: jax.lax.scan(generation, state, None, length=generations))(state)
    failed = np.flatnonzero(np.isnan(np.asarray(history)[:, 0]))
    if len(failed):
        raise UsageError(f"The function returned NaN for every candidate of generation {failed[0]}. Mend it.")
    return state, history


def _one_by_one(
    es: AskTell, state: AskTellState, function: Callable[..., Any], batched: bool, generations: int
) -> tuple[AskTellState, np.ndarray]:
    """The same, generation by generation, for a function of NumPy arrays."""
    rows = []
    for _ in range(generations):
        state, candidates = es.ask(state)
        points = np.asarray(candidates)
        given = function(points) if batched else [function(point) for point in points]
        try:
            fitness = np.asarray(given)
        except ValueError:
            raise UsageError(f"The function must return one number for each candidate: got {given!r}.") from None
        require_fitness(fitness, es.population_size)
        state = es.tell(state, fitness)
        rows.append([np.nanmax(fitness), np.nanmean(fitness)])
    return state, np.asarray(rows)


def _is_able(cls: type) -> bool:
    """Tell whether an algorithm needs nothing but fitness: novelty search wants to know how a member behaved."""
    return issubclass(cls, GaussianSearch) and cls.behaviour_size == 0


def _sums(held: Float[Array, "N m"], weights: Float[Array, "K N"]) -> Float[Array, "K m"]:
    """The sums of `noise.weighted_sums`, from perturbations that are held."""
    rows = [weights[0] @ held, *(row @ (held * held - 1) for row in weights[1:])]
    return jnp.stack(rows)
