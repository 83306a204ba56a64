"""What `import workhorse` offers, and what it costs."""

import subprocess
import sys

import pytest

import workhorse


def test_dir_shows_what_there_is_and_every_name_is_there():
    assert set(workhorse.__all__) <= set(dir(workhorse))
    assert {name for name in dir(workhorse) if not name.startswith("_")} <= set(workhorse.__all__)
    assert {"train", "Run", "study", "Study", "compare", "Policy", "UsageError"} <= set(workhorse.__all__)
    for name in workhorse.__all__:
        assert getattr(workhorse, name) is not None
        assert name == "__version__" or getattr(workhorse, name).__name__ == name
        assert name == "__version__" or getattr(workhorse, name).__doc__
    with pytest.raises(AttributeError, match="module 'workhorse' has no attribute 'trian'"):
        workhorse.trian  # noqa: B018


def test_importing_and_listing_imports_nothing_heavy():
    program = (
        "import sys, workhorse; dir(workhorse); workhorse.UsageError\n"
        "print({'jax', 'polars', 'gymnasium', 'mujoco', 'rich', 'yaml', 'numpy'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "set()"


def test_a_user_s_error_is_a_sentence_in_a_notebook():
    error = workhorse.UsageError("Expected one thing, got another.")
    error.add_note("the end of a traceback")
    shown = error._render_traceback_()
    assert shown == ["UsageError: Expected one thing, got another.", "the end of a traceback"]
