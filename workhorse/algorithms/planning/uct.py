"""Upper confidence bounds on trees: a tree of first actions, random completions."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, PyTree

from workhorse.algorithms.demonstration_learner import CopyActor
from workhorse.algorithms.planning.choices import ChoicePlanner
from workhorse.core.algorithm import Action, Key
from workhorse.core.configuration import configuration
from workhorse.core.ranges import require_non_negative
from workhorse.core.types import Tried

__all__ = ["UCT", "Tree"]


class Tree(NamedTuple):
    """What a slot remembers: nodes are beginnings of plans, node 0 is the present state.

    Attributes:
        children: node that a choice leads to, int32 (M, C); -1 where there is none yet.
        parent: int32 (M,); the root's is itself.
        visits: plans through a node, int32 (M,).
        total: sum of their returns from the step into the node on, float64 (M,).
        size: nodes that are there, int32.
        lowest, highest: return of a whole plan of this search.
        plan: the best plan that was tried, int32 (H,).
        reward: its rewards, float64 (H,); NaN where it was not tried from the present state.
    """

    children: Int[Array, "M C"]
    parent: Int[Array, "M"]
    visits: Int[Array, "M"]
    total: Float[Array, "M"]
    size: Int[Array, ""]
    lowest: Float[Array, ""]
    highest: Float[Array, ""]
    plan: Int[Array, "H"]
    reward: Float[Array, "H"]


@configuration
class UCT(ChoicePlanner):
    """Monte-Carlo tree search of a deterministic task, in batches.

    A plan goes down from the root to the child of the highest

        mean(child) / (highest - lowest) + exploration sqrt(ln N / n),       N = sum of n over the siblings,

    and where a choice has no node yet it is taken first; there a node is added, and the rest of the plan is drawn. n
    counts plans of the same round too, whose outcome is not known yet, so that they part. `lowest` and `highest` are
    the returns of whole plans in this search: values are on a scale of 1. *The best plan that was tried is carried
    out*, not the most visited child, for the task is deterministic: what a plan has promised comes true. The subtree
    of the choice taken is kept for the next action, and the best plan, shifted by a step, is tried first. The plans
    that a kept node has seen end a step earlier than those to come.

    Source: Kocsis and Szepesvari 2006, "Bandit based Monte-Carlo planning"; counting unobserved plans as in Liu et al.
    2020, "Watch the unobserved" (arXiv 1810.11755).
    """

    name = "uct"
    summary = "Monte-Carlo tree search with upper confidence bounds, before each action"

    exploration: float = 0.5
    """Weight of the confidence bound, with returns on a scale of 1."""

    def validate(self) -> None:
        super().validate()
        require_non_negative("UCT", exploration=self.exploration)

    def begin(self, actor: CopyActor, slot: Int[Array, ""]) -> Tree:
        most = 2 * self.num_plans * self.num_rounds + 1
        return Tree(
            jnp.full((most, self.num_choices), -1, jnp.int32),
            jnp.zeros(most, jnp.int32),
            jnp.zeros(most, jnp.int32),
            jnp.zeros(most, jnp.float64),
            jnp.int32(1),
            jnp.asarray(jnp.inf, jnp.float64),
            jnp.asarray(-jnp.inf, jnp.float64),
            self.first_plan(),
            self._untried(),
        )

    # --- going down ---

    def propose(self, actor: CopyActor, carry: Tree, key: Key, *, round: Int[Array, ""], count: int) -> Action:
        """Return plans that begin on their way down the tree; the first of a search is the best one so far."""
        tie_key, own_key = jax.random.split(key)

        def one(pending: Array, key: Key) -> tuple[Array, tuple[Array, Array]]:
            pending, begun, depth = self._descended(carry, pending, key)
            return pending, (begun, depth)

        pending = jnp.zeros(carry.children.shape, jnp.int32)
        _, (begun, depth) = jax.lax.scan(one, pending, jax.random.split(tie_key, count))
        plans = self.completed(own_key, begun, depth)
        return jnp.where(round == 0, plans.at[0].set(carry.plan), plans)

    def _descended(self, tree: Tree, pending: Array, key: Key) -> tuple[Array, Array, Array]:
        """Return counts of plans on their way with one more, its choices (H,) and how many of them were chosen."""
        unit = jnp.where(tree.highest > tree.lowest, tree.highest - tree.lowest, 1.0)

        def go_on(at: PyTree) -> Array:
            node, depth, *_ = at
            return (node >= 0) & (depth < self.horizon)

        def down(at: PyTree) -> PyTree:
            node, depth, pending, choices = at
            children = tree.children[node]
            visits = jnp.where(children >= 0, tree.visits[children], 0)
            count = visits + pending[node]
            mean = jnp.where(visits > 0, tree.total[children] / jnp.maximum(visits, 1), 0.0)
            known = jnp.where(visits > 0, mean, (mean * (visits > 0)).sum() / jnp.maximum((visits > 0).sum(), 1))
            bound = jnp.sqrt(jnp.log(jnp.maximum(count.sum(), 1)) / jnp.maximum(count, 1))
            score = known / unit + self.exploration * bound
            ties = jax.random.uniform(jax.random.fold_in(key, depth), score.shape, jnp.float64)
            score = jnp.where(count == 0, jnp.inf, score)
            best = jnp.argmax(jnp.where(score == score.max(), ties, -1.0))
            pending = pending.at[node, best].add(1)
            return children[best], depth + 1, pending, choices.at[depth].set(best.astype(jnp.int32))

        start = jnp.int32(0), jnp.int32(0), pending, jnp.zeros(self.horizon, jnp.int32)
        _, depth, pending, choices = jax.lax.while_loop(go_on, down, start)
        return pending, choices, depth

    # --- going up ---

    def refine(self, actor: CopyActor, carry: Tree, plans: Action, tried: Tried, *, round: Int[Array, ""]) -> Tree:
        returns, reward = self.returns(tried)
        onward = jnp.cumsum(reward[:, ::-1], axis=1)[:, ::-1]  # from each step to the end
        tree = jax.lax.scan(lambda tree, row: (self._noted(tree, *row), None), carry, (plans, onward))[0]
        best = jnp.argmax(returns)
        before = jnp.where(round == 0, -jnp.inf, carry.reward.sum())
        better = returns[best] > before
        fresh = round == 0
        return tree._replace(
            lowest=jnp.minimum(jnp.where(fresh, jnp.inf, carry.lowest), returns.min()),
            highest=jnp.maximum(jnp.where(fresh, -jnp.inf, carry.highest), returns.max()),
            plan=jnp.where(better, plans[best], carry.plan),
            reward=jnp.where(better, reward[best], carry.reward),
        )

    def _noted(self, tree: Tree, plan: Int[Array, "H"], onward: Float[Array, "H"]) -> Tree:
        """Return the tree with a plan's outcome in the nodes on its way, and a node where it leaves the tree."""
        most = len(tree.parent)

        def go_on(at: PyTree) -> Array:
            _, _, depth, is_over = at
            return ~is_over & (depth < self.horizon)

        def down(at: PyTree) -> PyTree:
            tree, node, depth, _ = at
            choice = plan[depth]
            child = tree.children[node, choice]
            is_new = child < 0
            fits = ~is_new | (tree.size < most)
            child = jnp.where(is_new, jnp.where(fits, tree.size, most), child)  # the last is nowhere
            tree = tree._replace(
                children=tree.children.at[node, choice].set(jnp.where(fits, child, -1)),
                parent=tree.parent.at[child].set(node, mode="drop"),
                visits=tree.visits.at[child].add(1, mode="drop"),
                total=tree.total.at[child].add(onward[depth], mode="drop"),
                size=tree.size + (is_new & fits),
            )
            return tree, child, depth + 1, is_new

        start = tree, jnp.int32(0), jnp.int32(0), jnp.zeros((), bool)
        return jax.lax.while_loop(go_on, down, start)[0]

    # --- going on ---

    def plan(self, carry: Tree) -> tuple[Action, Float[Array, "H"]]:
        return carry.plan, carry.reward

    def advance(self, carry: Tree, key: Key) -> tuple[Action, Tree]:
        tree = rerooted(carry, carry.plan[0])
        return carry.plan[0], tree._replace(plan=self.shifted_plan(carry.plan, key), reward=self._untried())


def rerooted(tree: Tree, choice: Int[Array, ""]) -> Tree:
    """Return the subtree of a choice at the root, its nodes numbered anew in their order; empty where it has none."""
    number = jnp.arange(len(tree.parent))
    child = tree.children[0, choice]
    kept, above = number == child, tree.parent
    for _ in range((len(tree.parent) - 1).bit_length()):  # doubles the distance to the ancestor that is asked
        kept, above = kept | kept[above], above[above]
    size = kept.sum().astype(jnp.int32)
    renamed = (jnp.cumsum(kept) - 1).astype(jnp.int32)
    order = jnp.argsort(~kept)  # stable: those kept come first
    there = number < size
    children = tree.children[order]
    children = jnp.where(there[:, None] & (children >= 0), renamed[children], -1)
    parent = jnp.where(there & (number > 0), renamed[tree.parent[order]], 0)
    return tree._replace(
        children=children,
        parent=parent,
        visits=jnp.where(there, tree.visits[order], 0),
        total=jnp.where(there, tree.total[order], 0.0),
        size=jnp.maximum(size, 1),
    )
