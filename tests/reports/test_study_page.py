"""The page of a study prints the analysis and nothing else, counts every seed, and runs no user's text as code."""

import base64
import html
import json
import math
import re
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import polars as pl
import pytest

from tests.reports import invented
from tests.studies import made_up
from workhorse.reports.study_page import write_study_report
from workhorse.reports.study_tables import reliability_table
from workhorse.reports.wording import interval_text, number_text, rate_text, share_text
from workhorse.studies.across_tasks import aggregate_scores
from workhorse.studies.cells import summarise
from workhorse.studies.verdicts import verdicts


class Reader(HTMLParser):
    """What a browser would see: text, links, and every address that it would load from."""

    def __init__(self):
        super().__init__(convert_charrefs=True)
        self.text, self.links, self.loads, self.tags, self._silent, self.blocks = [], [], [], [], None, {}
        self.ids = set()

    def handle_starttag(self, tag, attributes):
        found = dict(attributes)
        self.tags.append((tag, found))
        self.ids |= {found["id"]} if "id" in found else set()
        if tag == "a":
            self.links.append(found)
        self.loads += [found[name] for name in ("src", "srcset", "action", "data", "poster") if found.get(name)]
        self.loads += [found["href"]] if tag == "link" else []
        if tag in ("script", "style"):
            self._silent = found.get("id", tag)

    def handle_endtag(self, tag):
        if tag in ("script", "style"):
            self._silent = None

    def handle_data(self, data):
        if self._silent is None:
            self.text.append(data)
        else:
            self.blocks[self._silent] = data


def read(page):
    reader = Reader()
    reader.feed(page.read_text(encoding="utf-8"))
    words = re.sub(r"\s+", " ", " ".join(reader.text))
    return reader, re.sub(r"\s+", " ", words)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp("study")
    results = invented.study(folder)
    (results.runs[0].folder / "videos" / "1.mp4").write_bytes(b"not a video")
    page = write_study_report(results, folder)
    reader, text = read(page)
    return results, page, reader, text


def page_of(results, folder):
    page = write_study_report(results, folder)
    return (*read(page), page)


def test_every_cell_is_printed_as_analysed(written):
    results, page, _, _ = written
    cards = re.findall(r"<article.*?</article>", page.read_text(), re.S)
    cells = summarise(results)
    assert len(cards) == len(cells) == 6
    for cell, card in zip(cells, cards, strict=True):
        words = re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", card)))
        if cell.mean is None:
            assert number_text(float(cell.scores.mean())) in words
            assert cell.too_few in words, "it says why there is no interval"
            assert "95 % interval" not in words
        else:
            assert interval_text(cell.mean) in words
            assert interval_text(cell.iqm) in words
        assert rate_text(int(cell.successes.sum()), len(cell.runs), cell.success) in words
        for grade in (cell.reliability_grade, cell.robustness_grade, cell.cost_grade):
            assert ("– " if grade.text == "-" else grade.text) in words
            assert html.escape(grade.rule) in card, "what the letter means is beside it"
        assert number_text(cell.worst) in words
        assert f"{cell.num_crashed} crashed" in words
        assert card.count('class="pip') - card.count('class="pips') == len(cell.runs), "one mark a seed"
        assert card.count("pip good") == int(cell.successes.sum())
        assert card.count("pip broken") == cell.num_crashed + cell.num_diverged


def test_the_answer_counts_every_run(written):
    results, page, _, _ = written
    head = html.unescape(re.search(r"<h1>(.*?)</h1>", page.read_text()).group(1))
    cells = summarise(results)
    succeeded, ended = sum(int(cell.successes.sum()) for cell in cells), sum(run.ended for run in results.runs)
    assert ended == 52
    assert f"{succeeded} of {ended} runs" in head
    assert "1 crashed, 1 diverged, 1 collapsed, 1 run not ended yet" in head


def test_better_comes_from_the_tests_alone(written, tmp_path):
    results, page, _, text = written
    found = verdicts(results, summarise(results))
    assert any(verdict.better for verdict in found), "the fixture has a difference that the test shows"
    for verdict in found:
        assert verdict.sentence in text
    rest = text
    for verdict in found:
        rest = rest.replace(verdict.sentence, "")
    assert not re.search(r"\b(better|best variant|outperform|beats|superior|wins)", rest)
    assert page.read_text().count("<li class=shown>") == sum(verdict.better is not None for verdict in found)

    alone = invented.study(qualities=(0.8, 0.8))
    cells = summarise(alone)
    assert not any(verdict.better for verdict in verdicts(alone, cells)), "the same quality on both sides"
    _, words, plain = page_of(alone, tmp_path)
    assert "better" not in words
    assert "better" not in re.sub(r"<script>.*?</script>", "", plain.read_text(), flags=re.S)
    assert "more seeds of each" in words


def test_many_verdicts_are_folded_and_none_is_lost(tmp_path):
    results = invented.grid_study()
    _, text, _ = page_of(results, tmp_path)
    found = verdicts(results, summarise(results))
    assert len(found) == 72
    assert all(verdict.sentence in text for verdict in found)
    assert "of 72 pairs" in text


def test_failures_list_every_seed_that_failed_with_its_folder(written):
    results, page, _, _ = written
    section = re.search(r'<section id="failures">(.*?)</section>', page.read_text(), re.S).group(1)
    rows = re.findall(r"<tr>(.*?)</tr>", section, re.S)[1:]
    cells = summarise(results)
    collapsed = sum(cell.num_collapsed for cell in cells)
    failed = sum(len(cell.runs) - int(cell.successes.sum()) for cell in cells)
    assert len(rows) == failed, "the collapsed run is below the threshold too"
    kinds = {kind: sum(f">{kind}<" in row for row in rows) for kind in ("crashed", "diverged", "collapsed")}
    assert (
        kinds == {"crashed": 1, "diverged": 1, "collapsed": collapsed} == {"crashed": 1, "diverged": 1, "collapsed": 1}
    )
    assert all("href=" in row for row in rows)
    assert "the worker process died with signal 9" in section


def test_links_and_anchors_resolve(written):
    _, page, reader, _ = written
    anchors = [link["href"] for link in reader.links if link["href"].startswith("#")]
    relative = [link["href"] for link in reader.links if not link["href"].startswith(("#", "data:"))]
    assert len(anchors) > 8
    assert len(relative) > 60, "failures and all runs"
    assert all(anchor[1:] in reader.ids for anchor in anchors)
    for href in relative:
        assert href.startswith("./"), href
        assert (page.parent / unquote(href)).exists(), href


def test_nothing_is_loaded_from_anywhere(written):
    _, _, reader, _ = written
    assert all(address.startswith("data:") for address in reader.loads), reader.loads
    assert not any(tag in ("iframe", "object", "embed", "base") for tag, _ in reader.tags)
    style = reader.blocks["style"]
    assert "@import" not in style
    assert "url(" not in style
    policy = next(found["content"] for tag, found in reader.tags if found.get("http-equiv"))
    assert policy.startswith("default-src 'none'")
    assert "unsafe-eval" not in policy
    assert "'unsafe-inline'" not in policy.split("script-src")[1].split(";")[0]
    assert "http" not in policy


def test_tables_equal_the_data_drawn_and_the_downloads(written):
    _, page, reader, _ = written
    beside = {place.name: place.read_text() for place in (page.parent / "report-data").glob("*.csv")}
    inside = {
        link["download"]: base64.b64decode(link["href"].partition("base64,")[2]).decode()
        for link in reader.links
        if "download" in link
    }
    assert beside == inside
    assert len(beside) >= 7
    drawn = json.loads(reader.blocks["figures"])
    assert {f"{name}.csv" for name in drawn} == set(beside)


def test_the_learning_curves_table_is_the_runs_own_evaluations(written):
    results, page, _, _ = written
    table = pl.read_csv(page.parent / "report-data" / "learning-curves-HalfCheetah-v5.csv", infer_schema_length=None)
    (cell,) = [one for one in summarise(results) if (one.task, one.variant) == ("HalfCheetah-v5", "ars")]
    for run in cell.runs:
        rows = table.filter((pl.col("variant") == "ars") & (pl.col("seed") == run.seed) & (pl.col("line") == "seed"))
        assert rows["return"].to_list() == run.curve_returns.tolist()
    mean = table.filter((pl.col("variant") == "ars") & (pl.col("line") == "mean"))
    assert mean["return"].to_list() == cell.curve.mean.tolist()
    assert mean["low"].to_list() == cell.curve.low.tolist()
    ended = table.filter(pl.col("line") == "ended").row(0, named=True)
    assert (ended["seed"], ended["outcome"], ended["env_steps"]) == (3, "crashed", 500_000.0)
    assert ended["return"] == cell.runs[3].curve_returns[-1]


def test_too_few_runs_get_no_band(written):
    _, page, _, text = written
    table = pl.read_csv(page.parent / "report-data" / "learning-curves-CartPole-v1.csv", infer_schema_length=None)
    mean = table.filter((pl.col("variant") == "openai-es") & (pl.col("line") == "mean"))
    assert len(mean) > 0
    assert mean["low"].null_count() == len(mean)
    assert "Without a band: openai-es (2 runs: an interval needs at least 3)." in text
    reached = pl.read_csv(page.parent / "report-data" / "steps-to-threshold.csv", infer_schema_length=None)
    few = reached.filter((pl.col("task") == "CartPole-v1") & (pl.col("variant") == "openai-es"))
    assert few["low"].null_count() == len(few) > 0


def test_robustness_is_printed_as_analysed(written):
    results, _, _, text = written
    swept = [cell for cell in summarise(results) if cell.robustness is not None]
    assert len(swept) == 4
    for cell in swept:
        found = cell.robustness
        share, low, high = (share_text(value) for value in found.worst_share[:3])
        assert f"{cell.variant}: smallest share left under {found.worst_artefact}: {share} [{low}, {high}]" in text
        assert f"worst corner {found.worst_corner}: {share_text(found.worst_corner_share)} is left" in text
        assert ("this breaks it" in text) == any(one.robustness.breaks for one in swept)
    assert "Not tried, time limit: the task has no clock." in text


def test_aggregates_over_tasks_or_the_reason_why_there_are_none(written, tmp_path):
    results, _, _, text = written
    assert aggregate_scores(results) in text
    even = invented.results([run for run in results.runs if run.task != "CartPole-v1"])
    page_of(even, tmp_path)
    table = pl.read_csv(tmp_path / "report-data" / "across-tasks.csv")
    for aggregate in aggregate_scores(even):
        row = table.filter((pl.col("variant") == aggregate.variant) & (pl.col("statistic") == "IQM")).row(0, named=True)
        assert (row["value"], row["low"], row["high"]) == tuple(aggregate.iqm[:3])
    assert (tmp_path / "report-data" / "performance-profile.csv").exists()


def test_a_threshold_below_the_random_policy_does_not_stop_the_page(tmp_path):
    results = invented.grid_study()
    low = invented.results(results.runs, thresholds={"HalfCheetah-v5": -900.0, "Hopper-v5": 1000.0})
    _, text, _ = page_of(low, tmp_path)
    assert "is not above the floor" in text


def test_a_grid_has_a_tornado_and_its_sensitivity(tmp_path):
    results = invented.grid_study()
    _, text, _ = page_of(results, tmp_path)
    table = pl.read_csv(tmp_path / "report-data" / "tornado.csv")
    assert set(table["option"]) == {"learning_rate", "noise_std"}
    assert table.filter(pl.col("task") == "Hopper-v5")["mean_score"].len() == 6
    assert "Effective dimension" in text


def test_a_search_prints_its_gap(tmp_path):
    from workhorse.studies.tuning import search_gap

    results = invented.search_study()
    _, text, _ = page_of(results, tmp_path)
    found = search_gap(results, 0)
    assert f"The winner scored {number_text(found.promised)} on 3 tuning seeds" in text
    assert f"(the winner's curse): {interval_text(found.gap)}" in text
    table = pl.read_csv(tmp_path / "report-data" / "search-HalfCheetah-v5-ars.csv")
    trials = table.filter(pl.col("line") == "trial")
    assert trials["score"].to_list() == [trial.value for trial in results.searches[0].trials]
    assert table.filter(pl.col("line") == "reporting seed").height == 5


def test_no_text_of_a_user_becomes_markup(tmp_path):
    results = invented.hostile_study()
    reader, text, _ = page_of(results, tmp_path)
    scripts = [found for tag, found in reader.tags if tag == "script"]
    assert len(scripts) == 4, "two of data, Plotly's, and the page's own"
    assert not any(tag == "img" for tag, _ in reader.tags)
    assert not any(name.startswith("on") for _, found in reader.tags for name in found)
    assert invented.HOSTILE in text
    figures = json.loads(reader.blocks["figures"])
    texts = [word for word in strings(figures) if "document.title" in word]
    assert texts, "names are in the figures"
    assert "<script" not in reader.blocks["figures"]
    for panel in (panel for panels in figures.values() for panel in panels):
        shown = [note["text"] for note in panel["layout"].get("annotations", [])]
        shown += [
            trace.get("hovertemplate", "").replace("<br>", "").replace("<extra></extra>", "") for trace in panel["data"]
        ]
        assert not any("<" in word for word in shown), "Plotly reads tags in its texts"


def strings(value):
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for item in (*value.keys(), *value.values()):
            yield from strings(item)
    elif isinstance(value, list):
        for item in value:
            yield from strings(item)


def test_a_study_without_results_has_a_page_too(tmp_path):
    runs = [run for run in invented.study().runs if not run.ended]
    _, text, _ = page_of(invented.results(runs), tmp_path)
    assert "No run has ended yet: 1 run not ended yet." in text


def test_a_study_where_every_seed_crashed_before_its_first_evaluation(tmp_path):
    from dataclasses import replace

    import numpy as np

    study = invented.study()
    nothing = {"outcome": "crashed", "score": None, "reason": "no memory", "episode_returns": (), "sweep": None}
    empty = {"curve_steps": np.zeros(0), "curve_returns": np.zeros(0)}
    runs = [replace(run, **nothing, **empty) for run in study.runs if run.variant == "ars" and run.seed < 4]
    _, text, _ = page_of(invented.results(runs), tmp_path)
    assert "0 of 12 runs on 3 tasks succeed; 12 crashed." in text
    assert text.count("no memory") == 12


def test_writing_again_leaves_no_old_table(tmp_path):
    write_study_report(invented.search_study(), tmp_path)
    (tmp_path / "report-data" / "old.csv").write_text("a\n1\n")
    write_study_report(invented.search_study(), tmp_path)
    assert not (tmp_path / "report-data" / "old.csv").exists()


def test_videos_are_inside_where_small_and_linked_where_not(written, tmp_path, monkeypatch):
    from workhorse.reports import videos

    results = written[0]
    cells = summarise(results)
    (cell,) = [one for one in cells if (one.task, one.variant) == ("HalfCheetah-v5", "ars")]
    for run in cell.runs:
        (run.folder / "videos" / "1.mp4").write_bytes(b"x" * 100)
    inside = videos.study_videos([cell], written[1].parent)
    assert inside.count("data:video/mp4;base64,") == 2
    assert "worst seed (3)" in inside, "the crashed one is the worst"
    monkeypatch.setattr(videos, "EMBEDDED_BYTES", 150)
    linked = videos.study_videos([cell], written[1].parent)
    assert (linked.count("data:video"), linked.count("href=")) == (1, 2)


def test_numbers_are_written_for_people():
    assert [number_text(value) for value in (2386.4, -280.04, 0.000123456, math.nan)] == [
        "2,386",
        "−280",
        "0.0001235",
        "–",
    ]
    assert [share_text(value) for value in (0.5, 0.0, 0.997, 0.444)] == [".50", "0", ".997", ".44"]


def test_series_have_contrast_and_dark_twins():
    from workhorse.reports.palette import DARK, LIGHT, dark_twins

    def luminance(colour):
        parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
        parts = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2]

    for theme in (LIGHT, DARK):
        for name, colour in theme.items():
            ends = sorted((luminance(colour), luminance(theme["card"])))
            least = {"ink": 7.0, "muted": 4.5, "bad": 4.5}.get(name, 3.0 if name.startswith("series") else 0.0)
            assert (ends[1] + 0.05) / (ends[0] + 0.05) >= least, name
    assert set(LIGHT.values()) <= set(dark_twins())


def test_every_colour_of_a_figure_has_a_dark_twin(written):
    from workhorse.reports.palette import dark_twins

    figures = json.loads(written[2].blocks["figures"])
    used = {word for word in strings(figures) if re.fullmatch(r"#[0-9a-f]{6}|rgba\(.*\)", word)}
    assert len(used) > 5
    assert used <= set(dark_twins())
    assert Path(written[1]).stat().st_size < 12e6


def test_figures_cannot_end_their_script_whatever_the_encoder_does(tmp_path, monkeypatch):
    import plotly.io

    def plain(panel, validate):
        return json.dumps(panel.to_plotly_json(), default=lambda array: array.tolist())

    monkeypatch.setattr(plotly.io, "to_json", plain)
    reader, _, _ = page_of(invented.hostile_study(), tmp_path)
    assert sum(tag == "script" for tag, _ in reader.tags) == 4
    assert "<" not in reader.blocks["figures"]
    assert any("</script>" in word for word in strings(json.loads(reader.blocks["figures"])))


def test_many_variants_get_a_panel_each_in_one_scale(tmp_path):
    reader, _, _ = page_of(invented.grid_study(), tmp_path)
    figures = json.loads(reader.blocks["figures"])
    curves = figures["learning-curves-Hopper-v5"]
    assert len(curves) == 9
    assert len({tuple(panel["layout"]["yaxis"]["range"]) for panel in curves}) == 1
    assert len(figures["steps-to-threshold"]) == 18
    assert "performance-profile" not in figures, "nine lines of one colour say nothing"


def test_spread_and_risk_over_time_are_by_the_million_steps():
    """A curve that falls by 60 in 100 steps loses .6 a step."""
    runs = [made_up.run(seed, 40.0, curve=[0.0, 100.0, 40.0]) for seed in range(3)]
    words = str(reliability_table(summarise(made_up.study(runs))))
    assert number_text(-600_000.0) in words
    assert number_text(60.0) in words, "the greatest drawdown is a return"
