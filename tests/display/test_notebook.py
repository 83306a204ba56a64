"""Progress in a notebook: one output, renewed in place."""

import sys
from types import SimpleNamespace

import pytest

import workhorse
from workhorse.display.notebook import NotebookDisplay, in_notebook
from workhorse.display.run_display import display_for


class Handle:
    def __init__(self, shown):
        self.shown = shown

    def update(self, data, raw):
        self.shown.append(data)


@pytest.fixture
def shown(monkeypatch):
    """What a notebook would show; the process is its kernel as far as anybody can tell."""
    found = []

    def display(data, *, raw, display_id):
        found.append(data)
        return Handle(found)

    ipython = SimpleNamespace(get_ipython=lambda: SimpleNamespace(kernel=object()))
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", SimpleNamespace(display=display))
    return found


def test_a_notebook_is_told_from_other_programs(shown, monkeypatch):
    assert in_notebook() and isinstance(display_for(False, None), NotebookDisplay)
    assert not isinstance(display_for(True, None), NotebookDisplay)
    monkeypatch.setitem(sys.modules, "IPython", SimpleNamespace(get_ipython=lambda: SimpleNamespace()))
    assert not in_notebook()  # IPython in a terminal
    monkeypatch.setitem(sys.modules, "IPython", None)
    assert not in_notebook() and not isinstance(display_for(False, None), NotebookDisplay)


def test_a_run_shows_one_bar_that_ends_full(shown, tmp_path, capsys):
    workhorse.train(
        "CartPole-v1",
        "ars",
        env_steps=60,
        num_directions=2,
        num_top_directions=1,
        final_episodes=2,
        evaluate_every=0,
        max_episode_steps=10,
        runs=tmp_path,
    )
    assert "compiling" in shown[0]["text/plain"] and 'value="0" max="60"' in shown[0]["text/html"]
    assert 'value="60" max="60"' in shown[-1]["text/html"]
    assert "evaluating 2 episodes" in shown[-2]["text/plain"] and " left" not in shown[-1]["text/plain"]
    assert shown[-1]["text/plain"].endswith("iteration 2")
    iterated = [line["text/plain"] for line in shown if "evaluating" not in line["text/plain"]][1:]
    assert ["iteration 1" in line for line in iterated] == [True, False]  # not each row
    said = capsys.readouterr().out
    assert "Training: CartPole-v1" in said and "iteration" not in said.replace("iteration 0", "")


NOTEBOOK = """
import workhorse
run = workhorse.train("CartPole-v1", "ars", env_steps=60, num_directions=2, num_top_directions=1, final_episodes=2,
                      evaluate_every=0, max_episode_steps=10, runs={runs!r})
"""


@pytest.mark.slow
def test_a_real_kernel_shows_it(tmp_path):
    nbformat, nbclient = pytest.importorskip("nbformat"), pytest.importorskip("nbclient")
    pytest.importorskip("ipykernel")
    cells = [NOTEBOOK.format(runs=str(tmp_path)), "run", 'workhorse.train("CartPole-v1", "ars", env_step=3)']
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    nbclient.NotebookClient(notebook, timeout=300, allow_errors=True).execute()
    trained, named, refused = notebook.cells
    (bar,) = [output for output in trained.outputs if output.output_type == "display_data"]
    assert "<progress" in bar.data["text/html"] and "iteration 2" in bar.data["text/plain"]
    assert "finished after" in named.outputs[0].data["text/plain"]
    assert refused.outputs[-1].traceback == [f"UsageError: {refused.outputs[-1].evalue}"]
