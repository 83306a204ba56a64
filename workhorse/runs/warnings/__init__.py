"""Warnings: rules over the metrics of a run that say, once and with the iteration, that something looks wrong.

A rule reads the rows so far and nothing else, so the same warnings come whenever the rows are read: during the run,
after a resume, and from a run that was made without them. A condition must hold for several iterations in a row,
because one in a hundred iterations looks strange in any run. *A warning is a reason to look, and never proof*:
`bench/faults.py` measures how often each one is right, and how often it is a false alarm.

Source of the idea and of several rules: Rahtz 2018, "Lessons learned reproducing a deep reinforcement learning paper";
Jones 2021, "Debugging RL, without the agonizing pain". Thresholds were set on other seeds than those it shows.
"""

from workhorse.runs.warnings.learning import RULES as LEARNING_RULES
from workhorse.runs.warnings.off_policy import RULES as OFF_POLICY_RULES
from workhorse.runs.warnings.offline import RULES as OFFLINE_RULES
from workhorse.runs.warnings.rule import Rows, Rule
from workhorse.runs.warnings.signals import RULES as SIGNAL_RULES
from workhorse.runs.warnings.watch import OTHER_RULES, Warned, Watch, preflight, read_warnings, write_warnings

__all__ = ["OTHER_RULES", "RULES", "Rows", "Rule", "Warned", "Watch", "preflight", "read_warnings", "write_warnings"]

RULES: tuple[Rule, ...] = (*SIGNAL_RULES, *LEARNING_RULES, *OFF_POLICY_RULES, *OFFLINE_RULES)
