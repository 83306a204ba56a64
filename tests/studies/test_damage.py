"""Damaged and hostile study folders: one sentence, or a fallback that says so; never a traceback or another number."""

import json
import os
import shutil

import numpy as np
import pytest

from workhorse.cli.main import main
from workhorse.core.errors import UsageError
from workhorse.robustness.results import Artefact, Sweep, to_record
from workhorse.studies import conduct as conducting
from workhorse.studies.conduct import conduct
from workhorse.studies.dispatch import StudyObserver
from workhorse.studies.folder import StudyFolder
from workhorse.studies.loading import load_results, read_study
from workhorse.studies.plan import FIRST_TUNING_SEED
from workhorse.studies.search import Searching
from workhorse.studies.study_file import plan_of
from workhorse.studies.table import read_table, write_table

WORDS = {
    "tasks": ["CartPole-v1"],
    "algorithms": ["ars"],
    "seeds": 5,
    "search": {"noise_std": {"low": 0.01, "high": 1.0, "log": True}},
    "trials": 4,
    "tuning_seeds": 1,
    "perturbations": True,
}


def ended(job, score):
    record = {"outcome": "crashed" if score is None else "finished", "reason": "", "score": score}
    record |= {"episode_returns": [] if score is None else [score], "env_steps": 100, "wall_s": 1.0, "core_hours": 0.1}
    record |= {"failed_episodes": 0, "task": job.task, "variant": job.variant, "algorithm": job.algorithm}
    return record | {"seed": job.seed, "setting": dict(job.setting)}


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A study with a record of every kind, and its table; no run was trained."""
    folder = StudyFolder.create(tmp_path_factory.mktemp("studies"), "whole", plan_of(WORDS), ("workhorse", "study"))
    for job in folder.plan.jobs():
        folder.write_record("runs", job.id, ended(job, 100.0 + job.seed))
    searching = Searching(folder, "CartPole-v1", "ars")
    trials = searching.proposals()
    for trial in trials:
        for job in searching.jobs(trial):
            folder.write_record("tuning", job.id, ended(job, None if trial.number == 2 else float(trial.number)))
    searching.judge(trials)
    for job in searching.reporting_jobs():
        folder.write_record("runs", job.id, ended(job, 200.0 + job.seed))
    folder.write_record("floors", "CartPole-v1", {"random": [20.0, 24.0], "nothing": [9.0], "core_hours": 0.1})
    artefact = Artefact(
        "gravity", "x", 1.0, np.array([0.5, 1.0]), np.array([9.0, 99.0]), np.array([[9.0], [99.0]]), np.zeros(2, int)
    )
    sweep = to_record(Sweep(100.0, (artefact,), {}, 1, {}))
    folder.write_record("sweeps", folder.plan.jobs()[0].id, {**sweep, "core_hours": 0.1})
    folder.write_record("choices", "versions", {"sentence": "Other versions."})
    batch = {"task": "CartPole-v1", "algorithm": "ars", "variant": "ars", "setting": {}, "seeds": [5], "why": "wide"}
    folder.add_batch(batch)
    write_table(load_results(folder), folder.path / "results.parquet")
    return folder.path


def files(folder):
    return sorted(place.relative_to(folder) for place in folder.rglob("*") if place.is_file())


def numbers(results):
    return {(run.variant, run.seed): (run.outcome, run.score, run.core_hours) for run in results.runs}


def searches(results):
    return [(one.winner, one.complete, [trial.value for trial in one.trials]) for one in results.searches]


def outcome(place, folder, expected):
    """Read what a user would read, and say how it went: a sentence, a note, or unchanged numbers."""
    reads = (lambda: read_table(place)) if place.suffix == ".parquet" else (lambda: read_study(folder))
    sentence = None
    try:
        found = reads()
    except UsageError as error:
        sentence = str(error)
    if sentence is not None:
        assert "\n" not in sentence
        assert sentence.endswith((".", "`"))
        return "refused"
    known, before = numbers(found), numbers(expected)
    assert all(known[key] == before[key] or known[key][0] == "unfinished" for key in known), "another number"
    told = [note for note in found.notes if place.name in note]
    if known != before or found.floors != expected.floors or searches(found) != searches(expected):
        assert told, "something is missing, and nobody is told"
    return "told" if told else "unchanged"


def flipped(content, rng):
    at = int(rng.integers(len(content)))
    return content[:at] + bytes([content[at] ^ (1 << int(rng.integers(8)))]) + content[at + 1 :]


def parts(record, path=()):
    """The places of all fields in a record."""
    inside = record.items() if isinstance(record, dict) else enumerate(record) if isinstance(record, list) else ()
    for key, value in inside:
        yield (*path, key)
        yield from parts(value, (*path, key))


def changed(record, path, change):
    record = json.loads(json.dumps(record))
    holder = record
    for key in path[:-1]:
        holder = holder[key]
    change(holder, path[-1])
    return record


def damages(content, rng, flips, is_json):
    yield b""
    for share in (0.1, 0.5, 0.99):
        yield content[: int(share * len(content))]
    for _ in range(flips):
        yield flipped(content, rng)
    yield b"[" * 5000
    yield b'{"a":' * 5000
    yield b"\xff\x00" * 100
    if is_json:
        record = json.loads(content)
        del record["checksum"]  # as an earlier version wrote it: the fields alone have to tell
        for path in parts(record):
            if {"setting", "settings", "variant"} & set(path):  # another setting is a valid one
                continue
            yield json.dumps(changed(record, path, lambda holder, key: holder.__setitem__(key, None))).encode()
            yield json.dumps(changed(record, path, lambda holder, key: holder.__setitem__(key, {"x": [1]}))).encode()
            if not isinstance(path[-1], int) and "plan" not in path:  # a shorter list or plan is a valid one
                yield json.dumps(changed(record, path, lambda holder, key: holder.pop(key))).encode()


@pytest.mark.parametrize("flips", [6, pytest.param(200, marks=pytest.mark.slow)])
def test_a_damaged_file_is_a_sentence_or_a_note(whole, tmp_path, flips):
    folder = tmp_path / "whole"
    shutil.copytree(whole, folder)
    expected, rng, seen = load_results(StudyFolder.open(folder)), np.random.default_rng(0), {}
    for name in files(folder):
        place, content = folder / name, (folder / name).read_bytes()
        for number, damage in enumerate(damages(content, rng, flips, name.suffix == ".json")):
            if flips < 10 and number >= 12 and rng.random() > 0.3:  # a seeded sample of the fields
                continue
            place.write_bytes(damage)
            how = outcome(place, folder, expected)
            seen[how] = seen.get(how, 0) + 1
        place.write_bytes(content)
    assert seen["refused"] > 50
    assert seen["told"] > 100
    assert numbers(load_results(StudyFolder.open(folder))) == numbers(expected)


@pytest.mark.parametrize("flips", [30, pytest.param(2000, marks=pytest.mark.slow)])
def test_no_flipped_bit_goes_unnoticed(whole, tmp_path, flips):
    """Every file of a study carries the checksum of its content."""
    folder, rng = tmp_path / "whole", np.random.default_rng(1)
    shutil.copytree(whole, folder)
    expected = load_results(StudyFolder.open(folder))
    names = files(folder)
    for number in range(flips):
        name = names[number % len(names)]
        content = (folder / name).read_bytes()
        damage = flipped(content, rng)
        (folder / name).write_bytes(damage)
        if name.suffix == ".json" and same(damage, content):  # a space that became another one
            continue
        assert outcome(folder / name, folder, expected) != "unchanged", name
        (folder / name).write_bytes(content)


def same(damage, content):
    try:
        return json.loads(damage) == json.loads(content)
    except ValueError:
        return False


def test_records_that_were_swapped_are_noticed(whole, tmp_path):
    folder = tmp_path / "whole"
    shutil.copytree(whole, folder)
    expected = load_results(StudyFolder.open(folder))
    names = [name for name in files(folder) if name.parts[0] == "records"]
    for one in names:
        content = (folder / one).read_bytes()
        for other in (names[0], names[-1], *(name for name in names if name.parent == one.parent)):
            if other != one:
                (folder / one).write_bytes((folder / other).read_bytes())
                assert outcome(folder / one, folder, expected) in ("told", "refused"), (one, other)
        (folder / one).write_bytes(content)
    # as an earlier version wrote it, without the record's name
    run, another = [folder / name for name in names if name.parts[1] == "runs"][:2]
    old = {key: value for key, value in json.loads(another.read_text()).items() if key not in ("checksum", "record")}
    run.write_text(json.dumps(old))
    assert outcome(run, folder, expected) == "told"


@pytest.mark.parametrize(
    "name", ["study.json", "records/floors/CartPole-v1.json", "records/runs", "runs", "logs", "results.parquet"]
)
def test_no_link_leads_out_of_a_study(whole, tmp_path, name):
    folder, outside = tmp_path / "whole", tmp_path / "outside"
    shutil.copytree(whole, folder)
    shutil.move(folder / name, outside)
    os.symlink(outside, folder / name)
    before = {place: place.read_bytes() for place in [outside, *outside.rglob("*")] if place.is_file()}
    expected = load_results(StudyFolder.open(whole))
    if name == "results.parquet":
        with pytest.raises(UsageError, match="got a link"):
            read_table(folder / name)
        write_table(expected, folder / name)
        assert not (folder / name).is_symlink(), "it is replaced by name"
    elif name.endswith("CartPole-v1.json"):
        assert outcome(folder / name, folder, expected) == "told"
    else:
        with pytest.raises(UsageError, match="link"):
            read_study(folder)
        assert main(["study", str(folder)]) == 2
        assert main(["report", str(folder)]) == 2
    assert {place: place.read_bytes() for place in before} == before


def test_a_run_folder_that_is_a_link_is_refused(whole, tmp_path):
    folder = tmp_path / "whole"
    shutil.copytree(whole, folder)
    (tmp_path / "other").mkdir()
    os.symlink(tmp_path / "other", folder / "runs" / "CartPole-v1-ars-s0")
    with pytest.raises(UsageError, match="CartPole-v1-ars-s0, a link or a file"):
        StudyFolder.open(folder)


def test_the_command_line_ends_with_2_and_a_sentence(whole, tmp_path, capsys):
    folder = tmp_path / "whole"
    shutil.copytree(whole, folder)
    (folder / "study.json").write_bytes((folder / "study.json").read_bytes()[:200])
    for command in (["study", str(folder)], ["report", str(folder)], ["compare", str(folder), str(whole)]):
        assert main(command) == 2
        said = capsys.readouterr()
        assert "study.json, but it cannot be read" in said.err
        assert "Traceback" not in said.err + said.out
    (tmp_path / "table.parquet").write_bytes((whole / "results.parquet").read_bytes()[:-30])
    assert main(["report", str(tmp_path / "table.parquet")]) == 2
    assert "`workhorse study FOLDER` makes it again" in capsys.readouterr().err


def test_a_report_goes_on_without_a_damaged_record_and_says_so(whole, tmp_path, capsys):
    folder = tmp_path / "whole"
    shutil.copytree(whole, folder)
    for name in ("runs/CartPole-v1-ars-s1", "floors/CartPole-v1", "searches/CartPole-v1-ars"):
        place = folder / "records" / f"{name}.json"
        place.write_bytes(place.read_bytes()[:-40])
    assert main(["report", str(folder)]) == 0
    page = (folder / "report.html").read_text()
    assert "Without it the run counts as not ended" in page
    assert "Without it the returns of policies that learn nothing" in page
    assert "the search is not shown" in page


def test_what_was_lost_is_made_again(whole, tmp_path, monkeypatch):
    """A damaged search is made again from its tuning runs, to the same settings."""
    folder = StudyFolder.open(shutil.copytree(whole, tmp_path / "whole"))
    before = load_results(folder)
    damaged = folder.path / "records" / "searches" / "CartPole-v1-ars.json"
    damaged.write_bytes(b"{")
    monkeypatch.setattr(conducting._Study, "_train", lambda self, kind, jobs: None)
    monkeypatch.setattr(conducting._Study, "_floors", lambda self: [])
    notes = []

    class Notes(StudyObserver):
        def noted(self, sentence):
            notes.append(sentence)

    again = conduct(folder, 1, Notes())
    assert any("makes the record again from the tuning runs" in sentence for sentence in notes)
    assert again.searches == before.searches
    assert folder.damage == {}


# --- searches ---


def searched(tmp_path, scores, seeds=1):
    """Make a search whose trials' tuning runs end with these scores, None for a crash; return it, judged."""
    words = {**WORDS, "trials": len(scores), "tuning_seeds": seeds, "perturbations": False}
    folder = StudyFolder.create(tmp_path, None, plan_of(words), ("workhorse", "study"))
    folder.write_record("floors", "CartPole-v1", {"random": [6.5], "nothing": [6.5], "core_hours": 0.0})
    searching = Searching(folder, "CartPole-v1", "ars")
    while (trials := searching.proposals()) is not None:
        for trial in trials:
            given = scores[trial.number] if seeds > 1 else [scores[trial.number]]
            for job, score in zip(searching.jobs(trial), given, strict=True):
                assert job.seed >= FIRST_TUNING_SEED
                folder.write_record("tuning", job.id, ended(job, score))
        searching.judge(trials)
    return folder, searching


@pytest.mark.parametrize(
    ("scores", "winner"),
    [
        ([0.6, 2.77, None, None], 1),  # a random policy returns 6.5: more than all that finished
        ([-5.0, -8.0, None, -3.0, None], 3),
        ([-5.0, None, 4.0, 0.0], 2),
        ([None, None, None, -1e9], 3),
    ],
)
def test_a_crashed_setting_never_wins(tmp_path, scores, winner):
    folder, searching = searched(tmp_path, scores)
    assert [job.settings["noise_std"] for job in searching.reporting_jobs()] == [
        searching._record["trials"][winner]["settings"]["noise_std"]
    ] * 5
    (search,) = load_results(folder).searches
    assert search.winner == winner
    assert [trial.survived for trial in search.trials] == [score is not None for score in scores]
    assert search.complete


def test_a_setting_with_one_crashed_seed_did_not_survive(tmp_path):
    folder, _ = searched(tmp_path, [[9.0, None, 9.0], [1.0, 2.0, 3.0]], seeds=3)
    (search,) = load_results(folder).searches
    assert search.winner == 1
    assert search.trials[0].scores == (9.0, None, 9.0)
    assert search.trials[0].value is None


def test_where_all_crash_there_is_no_winner(tmp_path):
    folder, searching = searched(tmp_path, [None] * 5)
    assert searching.is_lost
    assert searching.reporting_jobs() == []
    results = load_results(folder)
    assert results.searches[0].is_lost
    assert results.variants == ("ars",), "no tuned variant"
    assert Searching(folder, "CartPole-v1", "ars").is_lost, "a continued study knows it too"


def test_a_continued_search_proposes_the_same_after_crashes(tmp_path):
    """Fifteen trials: after ten, the sampler uses what it was told, pruned trials included."""
    scores = [None if number % 3 == 0 else float(number % 5) for number in range(15)]
    folder, _ = searched(tmp_path, scores)
    record = folder.record("searches", "CartPole-v1-ars")
    assert record is not None
    folder.write_record(
        "searches", "CartPole-v1-ars", {**record, "trials": record["trials"][:12], "winner": None, "complete": False}
    )
    again = Searching(folder, "CartPole-v1", "ars")
    trials = again.proposals()
    assert [trial.settings for trial in trials] == [trial["settings"] for trial in record["trials"][12:]]


def test_a_search_begun_by_an_earlier_version_goes_on_and_a_crash_does_not_win(tmp_path):
    folder, _ = searched(tmp_path, [0.6, 2.77, None, None])
    record = folder.record("searches", "CartPole-v1-ars")
    old = [
        {"settings": trial["settings"], "scores": [score], "value": score}
        for trial, score in zip(record["trials"], [0.6, 2.77, 6.5, 6.5], strict=True)
    ]
    place = folder.path / "records" / "searches" / "CartPole-v1-ars.json"
    words = {"variant": "ars (tuned)", "tuning_seeds": [FIRST_TUNING_SEED], "winner": None}
    place.write_text(json.dumps({**words, "trials": old[:3]}))
    searching = Searching(folder, "CartPole-v1", "ars")
    searching.judge(searching.proposals())
    assert load_results(folder).searches[0].winner == 1
