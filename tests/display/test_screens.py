"""What a user watches: two lines that fit, what matters most kept, old numbers marked, and an honest time left."""

import io
import math

import pytest
from rich.console import Console

from workhorse.display import run_display, study_display
from workhorse.display.run_display import Display, LiveDisplay, can_redraw
from workhorse.display.study_display import LiveStudyDisplay, StudyDisplay
from workhorse.display.time_left import TimeLeft
from workhorse.reports.wording import number_text
from workhorse.runs.schedule import Schedule

WIDTHS = (20, 40, 60, 80, 120, 200)
SCHEDULE = Schedule(evaluate_every=100_000, evaluation_episodes=16, final_episodes=100)


class Clock:
    now = 1000.0

    def monotonic(self):
        return self.now


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(run_display, "time", clock)
    monkeypatch.setattr(study_display, "time", clock)
    return clock


class Folder:
    path = "runs/x"


class Manifest:
    task, algorithm, seed, recipe, recipe_source, threads, slots = "Humanoid-v5", "ppo", 3, None, None, 2, 64
    counts_updates, sources = False, None


def begun(display, budget=3_000_000, env_steps=0):
    row = {"iteration": 0, "env_steps": env_steps, "budget": budget, "resumed": False, "schedule": SCHEDULE}
    display.started(Folder, Manifest, row)


def iteration(number, env_steps, **more):
    row = {"iteration": number, "env_steps": env_steps, "steps": 2048, "steps_per_second": 51_234.5}
    return row | {"training_return": 1234.56, "episode_length": 200.0} | more


def screen(display, width):
    """The lines that a terminal of this width shows."""
    console = Console(file=io.StringIO(), width=width, force_terminal=True, color_system=None, legacy_windows=False)
    display._live.console = display._console = console
    console.print(display._shown())
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


@pytest.mark.parametrize("width", WIDTHS)
def test_at_most_two_lines_that_fit_and_evaluated_is_never_cut(clock, width, capsys):
    display = LiveDisplay(None, Console(file=io.StringIO()))
    begun(display)
    display._live.stop()
    for number, evaluated in enumerate([3.25, -98765.4, 1e7, 0.001], 1):
        clock.now += 11
        display.evaluating(16, False)
        clock.now += 2
        row = iteration(number, 123_456 * number, evaluation_return=evaluated, gradient_signal=0.5, gradient_noise=3.0)
        display.iterated(row)
        for _ in range(2):
            lines = screen(display, width)
            assert len(lines) == (2 if width >= 40 else len(lines)) <= 2
            assert all(len(line) <= width for line in lines)
            assert width < 40 or any("evaluated " in line and number_text(evaluated) in line for line in lines)
            assert width < 40 or any(line.endswith(" left") or " left  " in line for line in lines) or number == 1
            clock.now += 1
            display.iterated(iteration(number, 123_456 * number + 2048, gradient_signal=0.5, gradient_noise=3.0))


def test_the_first_line_of_80_columns_has_what_matters(clock):
    display = LiveDisplay(None, Console(file=io.StringIO()))
    begun(display)
    display._live.stop()
    for number in (1, 2):
        clock.now += 10
        display.iterated(iteration(number, 100_000 * number, evaluation_return=987.6))
    first, second = screen(display, 80)
    assert "7%  evaluated 987.6  return 1,235  " in first and first.endswith(" left")
    assert second.startswith("200,000 of 3M steps  51,234 steps/s  iteration 2")


def test_a_number_that_is_old_says_of_when_it_is(clock):
    display = LiveDisplay(None, Console(file=io.StringIO()))
    begun(display)
    display._live.stop()
    display.iterated(iteration(1, 100_000, evaluation_return=987.6))
    assert "evaluated 987.6  return 1,235" in screen(display, 120)[0]
    display.iterated(iteration(2, 140_000, training_return=math.nan))
    assert "evaluated 987.6 at 100k  return 1,235 at 100k" in screen(display, 120)[0]


def test_compiling_and_evaluating_are_shown_with_their_time(clock):
    display = LiveDisplay(None, Console(file=io.StringIO()))
    begun(display)
    display._live.stop()
    clock.now += 17
    assert "compiling, 17 s" in screen(display, 80)[0]
    display.iterated(iteration(1, 100_000))
    assert "compiling" not in " ".join(screen(display, 80))
    display.evaluating(16, False)
    clock.now += 4
    assert "compiling and evaluating 16 episodes, 4.0 s" in " ".join(screen(display, 80))
    display.iterated(iteration(2, 200_000, evaluation_return=1.0))
    display.evaluating(100, True)
    assert "  evaluating 100 episodes, 0.0 s" in " ".join(screen(display, 80))


def test_lines_in_a_pipe_are_whole_and_say_that_it_compiles(clock, capsys):
    display = Display(None)
    begun(display)
    assert capsys.readouterr().out.splitlines()[-1] == "Compiling ..."
    clock.now += 60
    display.iterated(iteration(1, 100_000, evaluation_return=1.5))
    clock.now += 6
    display.iterated(iteration(2, 200_000))
    first, second = capsys.readouterr().out.splitlines()
    assert "evaluated 1.5  return 1,235" in first and "evaluated 1.5 at 100k" in second
    assert "2 min 51 s left" in second and "200,000 of 3M steps" in second and "\x1b" not in second
    display.evaluating(100, True)
    assert "evaluating 100 episodes ..." in capsys.readouterr().out


def test_a_terminal_that_cannot_move_its_cursor_gets_plain_lines(monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: True, raising=False)
    monkeypatch.setenv("TERM", "dumb")
    assert not can_redraw()
    monkeypatch.setenv("TERM", "xterm")
    assert can_redraw()


def test_without_colour_no_colour_is_written(clock, monkeypatch):
    monkeypatch.setenv("NO_COLOR", "1")
    output = io.StringIO()
    display = LiveDisplay(None, Console(file=output, force_terminal=True, width=80))
    begun(display)
    display._live.stop()
    display.iterated(iteration(1, 100_000, evaluation_return=1.5))
    display._live.console.print(display._shown())
    assert "evaluated 1.5" in output.getvalue() and "\x1b[32m" not in output.getvalue()


class Simulated:
    """A run whose iterations and evaluations take known times: what is forecast, and what is true, after each."""

    def __init__(self, *, compile_s, iteration_s, evaluation_s, budget, steps, schedule, noise=0.0):
        now, left, env_steps, number, forecasts = 0.0, TimeLeft(0, budget, schedule, 0.0), 0, 0, []
        first = True
        while env_steps < budget:
            number += 1
            before, env_steps = env_steps, env_steps + steps
            now += iteration_s * (1 + noise * math.sin(7 * number)) + (compile_s if number == 1 else 0)
            if schedule.evaluation_due(before, env_steps):
                left.evaluating(now)
                now += evaluation_s + (compile_s / 2 if first else 0)
                first = False
            left.iterated(env_steps, 500.0, now)
            forecasts.append((number, now, left.seconds(now)))
        compiling_s = compile_s / 2 if first else 0
        end = now + evaluation_s * (schedule.final_episodes / schedule.evaluation_episodes) ** 0.9 + compiling_s
        self.ratios = [forecast / (end - at) for number, at, forecast in forecasts if number >= 3]


@pytest.mark.parametrize("compile_s", [0.0, 5.0, 100.0])
@pytest.mark.parametrize("evaluation_s", [0.2, 2.0])
@pytest.mark.parametrize("every", [0, 10_000, 100_000])
@pytest.mark.parametrize("noise", [0.0, 0.4])
def test_the_time_left_is_never_off_by_two_after_the_third_iteration(compile_s, evaluation_s, every, noise):
    schedule = Schedule(every, 16, 16)
    budget, steps = 1_000_000, 5_000
    rate = 2.0 / steps  # an evaluated step takes about what a training step takes
    run = Simulated(
        compile_s=min(compile_s, 20 if every == 0 else compile_s), iteration_s=2.0, evaluation_s=evaluation_s,
        budget=budget, steps=steps, schedule=schedule, noise=noise,
    )  # fmt: skip
    assert rate > 0 and len(run.ratios) > 100
    early = run.ratios[: int(0.9 * len(run.ratios))]  # at the very end the last evaluation alone is left
    assert min(early) > 0.5 and max(early) < 2.0


def test_a_study_says_what_its_runs_are_at_while_none_has_ended(clock, capsys):
    display = StudyDisplay()
    display._jobs = 5
    display.doing("one", "starting")
    display.doing("two", "starting")
    clock.now += 8
    display.doing("one", "compiling")
    clock.now += 4
    display.waited()
    assert "0 of 5 runs: one compiling, 4.0 s; two starting, 12 s" in capsys.readouterr().out
    display.waited()
    assert capsys.readouterr().out == "", "a line every ten seconds"
    display.progressed("one", 0, 1000, None)
    clock.now += 11
    display.progressed("one", 500, 1000, 12.34)
    assert "0 of 5 runs, 1 min 39 s left: one 50% return 12.3; two starting, 23 s" in capsys.readouterr().out


@pytest.mark.parametrize("width", [40, 80, 120])
def test_the_screen_of_a_study_fits(clock, width):
    display = LiveStudyDisplay(Console(file=io.StringIO()))
    display._live = display
    display._jobs, display._ended, display._crashed = 40, 3, 1
    for number in range(12):
        display.doing(f"HalfCheetah-v5-ppo-learning_rate=0.0003-discount=0.99-s{number}", "compiling")
    display.progressed("HalfCheetah-v5-ppo-learning_rate=0.0003-discount=0.99-s1", 400, 1000, 1234.5)
    clock.now += 60
    display.progressed("HalfCheetah-v5-ppo-learning_rate=0.0003-discount=0.99-s1", 800, 1000, 1234.5)
    lines = screen(display, width)
    assert all(len(line) <= width for line in lines) and len(lines) == 10
    assert "3 of 40 runs" in lines[0] and lines[-1] == "  and 4 more"
    assert width < 80 or ("1 crashed" in lines[0] and "left" in lines[0] and "80% return 1234.5" in lines[2])
