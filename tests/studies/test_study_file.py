"""Study files: what they say, and what is wrong with them, found before any work is begun."""

import datetime

import pytest

from workhorse.core.errors import UsageError
from workhorse.studies.plan import FIRST_TUNING_SEED, Range, StudyPlan
from workhorse.studies.rules import Budget, Until
from workhorse.studies.study_file import plan_of, read_plan

SMALL = {"tasks": ["CartPole-v1"], "algorithms": ["ars"]}


def test_a_file_says_everything(tmp_path):
    file = tmp_path / "study.yaml"
    file.write_text(
        """
tasks: [Hopper-v5, CartPole-v1]
algorithms: [ars, openai-es]
seeds: 3
env_steps: {Hopper-v5: 1e6}
settings: {ars: {num_directions: 8}}
grid: {noise_std: [1e-2, 0.03]}
thresholds: {Hopper-v5: 2000}
perturbations: {gravity: [0.5, 1, 1.5]}
until: failure_rate width < 0.3
budget: 90 core-minutes
"""
    )
    plan = plan_of(read_plan(file))
    assert plan.seeds == (0, 1, 2)
    assert plan.grid == {"noise_std": (0.01, 0.03)}, "1e-2 is a number, as in Python"
    assert plan.env_steps == {"Hopper-v5": 1_000_000}
    assert plan.until == Until("failure_rate", 0.3)
    assert plan.budget == Budget(1.5)
    assert plan.perturbations == {"gravity": (0.5, 1.0, 1.5)}
    jobs = plan.jobs()
    assert len(jobs) == 2 * 2 * 2 * 3
    assert len({job.id for job in jobs}) == len(jobs)
    assert [job.seed for job in jobs] == sorted(job.seed for job in jobs), "a study stopped early is an even one"
    first = jobs[0]
    assert (first.task, first.variant, first.env_steps) == ("Hopper-v5", "ars (noise_std 0.01)", 1_000_000)
    assert first.settings["num_directions"] == 8
    assert first.settings["alive_bonus"] == 1.0, "the recipe's"
    assert first.settings["noise_std"] == 0.01, "the grid goes before the recipe"


def test_a_plan_survives_its_own_words():
    words = {
        **SMALL,
        "seeds": [3, 5],
        "search": {"noise_std": {"low": 1e-3, "high": 0.1, "log": True}, "variant": ["v1", "v2"]},
        "trials": 7,
        "perturbations": True,
        "thresholds": 400,
    }
    plan = plan_of(words)
    assert plan_of(plan.to_json()) == plan
    assert plan.search is not None
    assert plan.search.ranges == {"noise_std": Range(0.001, 0.1, True), "variant": Range(choices=("v1", "v2"))}
    assert plan.perturbations == {}
    assert plan.thresholds == {"CartPole-v1": 400.0}


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"tasks": ["Hoper-v5"], "algorithms": ["ars"]}, "Unknown task 'Hoper-v5'. Did you mean Hopper-v5"),
        ({"tasks": ["CartPole-v1"], "algorithms": ["arz"]}, "Unknown algorithm 'arz'"),
        ({"tasks": ["CartPole-v1"]}, "`algorithms` in the study to be a list of at least one name"),
        ({**SMALL, "tasks": ["CartPole-v1", "CartPole-v1"]}, "CartPole-v1 is listed twice under `tasks`"),
        ({**SMALL, "taks": 1}, "Unknown entry 'taks' in .*Did you mean tasks"),
        ({**SMALL, "seeds": 0}, "`seeds` .* to be a whole number of at least 1 or a list.*, got 0"),
        ({**SMALL, "seeds": [1, 1]}, "1 is listed twice under `seeds`"),
        ({**SMALL, "seeds": [-1]}, r"`seeds` entry 1 .* a whole number in \[0, 2\*\*31\).*, got -1"),
        ({**SMALL, "seeds": [FIRST_TUNING_SEED]}, "above which seeds are tuned, got 2147483648"),
        ({**SMALL, "seeds": "ten"}, "`seeds` .* a whole number of at least 1 or a list.*, got 'ten'"),
        ({**SMALL, "env_steps": -5}, "`env_steps` .* a whole number of at least 1 or a table, got -5"),
        (
            {**SMALL, "env_steps": {"CartPole-v1": 0.5}},
            "`env_steps` of .* number of at least 1, got 0",
        ),
        ({**SMALL, "seeds": []}, "`seeds` .* a list of at least one seed"),
        ({**SMALL, "env_steps": {"Hopper-v5": 5}}, "names 'Hopper-v5', which is none of the study's tasks"),
        ({**SMALL, "settings": {"openai-es": {}}}, "names 'openai-es', which is none of the study's algorithms"),
        ({**SMALL, "settings": {"ars": {"nois_std": 1}}}, "Unknown option of ars 'nois_std'. Did you mean noise_std"),
        ({**SMALL, "grid": {"noise_std": 0.1}}, "`grid` of 'noise_std' .* to be a list of values, got 0.1"),
        ({**SMALL, "grid": {"noise_std": [0.1, 0.1]}}, "0.1 is listed twice under `grid: noise_std`"),
        ({**SMALL, "grid": {"noise_std": [0.1]}, "search": {"noise_std": [1, 2]}}, "a grid or a search, not both"),
        (
            {**SMALL, "grid": {"noise_std": [0.1]}, "settings": {"ars": {"noise_std": 0.2}}},
            "noise_std of ars is fixed by `settings` and varied by `grid`",
        ),
        ({**SMALL, "trials": 5}, "`trials` is for a search"),
        (
            {**SMALL, "search": {"noise_std": {"low": 1}}},
            "a field `high` in .* `search` of 'noise_std'",
        ),
        ({**SMALL, "search": {"noise_std": {"low": 2, "high": 1}}}, "must rise"),
        ({**SMALL, "search": {"noise_std": {"low": 0, "high": 1, "log": True}}}, "above 0 where it is logarithmic"),
        ({**SMALL, "until": "failure_rate width < 0.3"}, "may never end"),
        ({**SMALL, "until": "failure width < 0.3", "budget": "1 core-hours"}, "Unknown statistic 'failure'.*Did you"),
        ({**SMALL, "until": "failure_rate < 0.3", "budget": "1 core-hours"}, "'STATISTIC width < NUMBER'"),
        ({**SMALL, "until": "failure_rate width < 3", "budget": "1 core-hours"}, "at most 1 wide"),
        ({**SMALL, "budget": "2 hours"}, "a number and a unit"),
        ({**SMALL, "budget": "-2 core-hours"}, "a number above 0, got '-2'"),
        ({**SMALL, "thresholds": float("nan")}, "`thresholds` .* a finite number or a table, got nan"),
        ({**SMALL, "perturbations": 3}, "`perturbations` .* true or false or a table, got 3"),
        ({**SMALL, True: 3}, "Unknown entry True"),
        (
            {**SMALL, "grid": {"noise_std": [datetime.date(2020, 1, 1)]}},
            "`grid` of 'noise_std' .* plain text, .* got datetime.date",
        ),
        (
            {**SMALL, "task_options": {"CartPole-v1": {"speed": float("inf")}}},
            "of 'speed' .* finite numbers",
        ),
        (
            {**SMALL, "tasks": ["a:CartPole-v1", "a-CartPole-v1"]},
            "run folders of the same name, a-CartPole-v1-ars-s0|Unknown task",
        ),
    ],
)
def test_what_is_wrong_is_said_in_a_sentence(words, message):
    with pytest.raises(UsageError, match=message):
        plan_of(words)


def test_a_date_in_yaml_is_told_from_text(tmp_path):
    (tmp_path / "study.yaml").write_text(
        "tasks: CartPole-v1\nalgorithms: ars\nsettings: {ars: {noise_std: 2020-01-01}}"
    )
    with pytest.raises(UsageError, match=r"of 'noise_std' in .* dates go in quotes"):
        plan_of(read_plan(tmp_path / "study.yaml"), str(tmp_path / "study.yaml"))


def test_files_that_are_none(tmp_path):
    with pytest.raises(UsageError, match="which does not exist"):
        read_plan(tmp_path / "none.yaml")
    file = tmp_path / "study.yaml"
    file.write_text("tasks: [Hopper-v5")
    with pytest.raises(UsageError, match=r"a study file in YAML in .* cannot be read"):
        read_plan(file)
    file.write_text("- Hopper-v5")
    with pytest.raises(UsageError, match="got no table but"):
        read_plan(file)
    file.write_text("tasks: " + "[" * 10_000)
    with pytest.raises(UsageError, match="cannot be read"):
        read_plan(file)
    file.write_text("tasks: !!python/object/apply:os.system ['true']")
    with pytest.raises(UsageError, match=r"a study file in YAML in .* cannot be read"):
        read_plan(file)


def test_reporting_and_tuning_seeds_cannot_meet():
    plan = StudyPlan(("CartPole-v1",), ("ars",), (0, FIRST_TUNING_SEED - 1))
    assert max(plan.seeds) < FIRST_TUNING_SEED


def test_settings_that_look_alike_have_folders_of_their_own():
    plan = plan_of({"tasks": ["CartPole-v1"], "algorithms": ["ppo"], "grid": {"log_std": [-0.5, 0.5]}, "seeds": 1})
    assert len({job.id for job in plan.jobs()}) == 2


def test_rules_survive_being_written_down():
    budget, until = Budget.of("123456.789 core-seconds"), Until.of("mean_return width < 1234.56789")
    assert Budget.of(budget.text) == budget
    assert Until.of(until.text) == until
