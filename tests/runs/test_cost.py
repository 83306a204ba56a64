"""Core-hours add up, prices are found in order, and nothing but a plain number is taken for a price."""

import errno
import json
import math
from dataclasses import replace

import pytest

from workhorse.core.errors import UsageError
from workhorse.core.machine import Hardware
from workhorse.runs.cost import BUILT_IN_PRICES, UNKNOWN_KIND, Ledger, PriceBook, price
from workhorse.runs.folder import RunFolder
from workhorse.runs.manifest import Manifest
from workhorse.runs.metrics import MetricsLog

EPYC, XEON = "AMD EPYC 7B13 64-Core Processor", "Intel(R) Xeon(R) CPU @ 2.20GHz"


@pytest.fixture(autouse=True)
def _no_price_book_of_the_developer(tmp_path, monkeypatch):
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    monkeypatch.delenv("WORKHORSE_PRICES", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


def run_folder(root, *, rows=(), cpu=EPYC, threads=4) -> RunFolder:
    folder = RunFolder.create(root, "r", task="CartPole-v1", algorithm="ars", seed=0)
    made = Manifest.describe(
        id="r",
        command=(),
        task="CartPole-v1",
        task_options={},
        algorithm="ars",
        settings={},
        seed=0,
        env_steps=100,
        slots=8,
        threads=threads,
    )
    folder.write_manifest(replace(made, hardware=Hardware(cpu, 64, 0, "Linux", ())))
    if rows:
        log = MetricsLog(folder, tensorboard=False)
        for iteration, row in enumerate(rows, 1):
            log.append(iteration, row)
        log.close()
    return folder


def book(path, *entries, currency="EUR", extra=""):
    """A price book of (kind, price) pairs, the price as TOML text."""
    lines = [f'currency = "{currency}"', extra]
    for kind, amount in entries:
        lines += ["[[core]]", f'kind = "{kind}"', f"price_per_core_hour = {amount}", f'source = "of {kind}"']
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines))
    return path


# --- the ledger ---


def test_core_hours_by_hand():
    ledger = Ledger()
    for _ in range(2):
        ledger = ledger.charge(EPYC, 64, 1800).charge(XEON, 2, 1800).passed(1800, ledger.env_steps + 500)
    assert ledger.core_seconds == {EPYC: 230_400.0, XEON: 7_200.0}
    assert ledger.core_hours == 66.0
    assert (ledger.wall_s, ledger.env_steps) == (3600.0, 1000)
    assert not ledger.estimated


def test_charging_changes_no_other_ledger():
    first = Ledger().charge(EPYC, 1, 10)
    first.charge(EPYC, 1, 10)
    assert first.core_seconds == {EPYC: 10.0}


def test_a_core_without_a_name_has_a_kind():
    assert Ledger().charge("", 1, 5).core_seconds == {UNKNOWN_KIND: 5.0}


@pytest.mark.parametrize("number", [-1, math.nan, math.inf])
def test_a_charge_is_finite_and_not_negative(number):
    for charge in (
        lambda: Ledger().charge(EPYC, number, 1),
        lambda: Ledger().charge(EPYC, 1, number),
        lambda: Ledger().passed(number, 1),
        lambda: Ledger().passed(1, number),
    ):
        with pytest.raises(ValueError, match="finite numbers of at least 0"):
            charge()


def test_a_ledger_comes_back_from_its_run(tmp_path):
    folder = run_folder(tmp_path)
    for ledger in (Ledger(), Ledger({EPYC: 0.1, XEON: 2.5}, 1 / 3, 10**12, True)):
        ledger.write(folder)
        assert Ledger.of(folder) == ledger
    assert [path.name for path in folder.path.iterdir() if "ledger" in path.name] == ["ledger.json"]


def test_a_full_disk_leaves_the_old_ledger(tmp_path, monkeypatch):
    folder, old = run_folder(tmp_path), Ledger().charge(EPYC, 1, 1)
    old.write(folder)

    def full(descriptor):
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patch:
        patch.setattr("os.fsync", full)
        with pytest.raises(UsageError, match=r"Could not write the ledger to .*the disk .* is full"):
            old.charge(EPYC, 1, 1).write(folder)
    assert Ledger.of(folder) == old


def edited(**changes) -> str:
    record = json.loads(Ledger({EPYC: 1.0}, 2.0, 3).to_json())
    for name, value in changes.items():
        if value is ...:
            del record[name]
        else:
            record[name] = value
    return json.dumps(record)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "Expected a ledger in JSON in run/ledger.json, but it cannot be read .*damaged"),
        (b"\xff\xfe\x00", "cannot be read"),
        ("[" * 100_000, "cannot be read"),
        ("[1]", "Expected a ledger in JSON in run/ledger.json, got no table but \\[1\\]"),
        ("{}", "Expected a ledger in run/ledger.json, got JSON without a `format`"),
        (edited(format=2), "Expected ledger format 1 in run/ledger.json, got 2: another version"),
        (edited(wall_s=...), "Expected a field `wall_s` in run/ledger.json, got none"),
        (edited(estimated=...), "Expected a field `estimated` in run/ledger.json, got none"),
        (edited(colour="red"), "Expected no field `colour` in run/ledger.json, got one"),
        (edited(wall_s="2"), "Expected `wall_s` .* to be a finite number of at least 0, got '2'"),
        (edited(wall_s=True), "Expected `wall_s` .* got True"),
        (edited(wall_s=math.nan), "Expected `wall_s` .* got nan"),
        (edited(wall_s=10**400), "Expected `wall_s` .* got 1000"),
        (edited(env_steps=1.5), "Expected `env_steps` .* to be a whole number of at least 0, got 1.5"),
        (edited(env_steps=-1), "Expected `env_steps` .* got -1"),
        (edited(env_steps=True), "Expected `env_steps` .* got True"),
        (edited(estimated=1), "Expected `estimated` .* to be true or false, got 1"),
        (edited(core_seconds=[1]), "Expected `core_seconds` .* to be a table, got"),
        (
            edited(core_seconds={EPYC: -1}),
            "Expected `core_seconds` of 'AMD.*' .* to be a finite number of at least 0",
        ),
        (edited(core_seconds={EPYC: math.inf}), "Expected `core_seconds`"),
        (edited(core_seconds={EPYC: False}), "Expected `core_seconds`"),
    ],
)
def test_a_ledger_is_read_strictly(text, message):
    with pytest.raises(UsageError, match=message):
        Ledger.from_json(text, "run/ledger.json")


def flip(file):
    file.write_text(file.read_text().replace("1800", "1801"))


def link(file):
    file.rename(file.with_name("other"))
    file.symlink_to("other")


@pytest.mark.parametrize("damage", [flip, link, lambda file: file.write_text("{")])
def test_a_damaged_ledger_is_said_and_estimated(tmp_path, damage):
    folder = run_folder(tmp_path, rows=[{"wall_s": 900.0, "env_steps": 80}])
    Ledger({EPYC: 1800.0}, 450.0, 80).write(folder)
    damage(folder.path / "ledger.json")
    notes = []
    assert Ledger.of(folder, notes.append) == Ledger({EPYC: 3600.0}, 900.0, 80, estimated=True)
    assert len(notes) == 1 and "ledger.json" in notes[0] and "it is estimated from the metrics" in notes[0]


# --- runs without a ledger ---


def test_a_run_without_a_ledger_is_estimated(tmp_path):
    rows = [{"wall_s": 2.0, "env_steps": 40}, {"wall_s": 900.0, "env_steps": 80}]
    assert Ledger.of(run_folder(tmp_path, rows=rows)) == Ledger({EPYC: 3600.0}, 900.0, 80, estimated=True)


def test_an_estimate_stays_one_when_the_run_goes_on(tmp_path):
    folder = run_folder(tmp_path, rows=[{"wall_s": 10.0, "env_steps": 40}])
    Ledger.of(folder).charge(EPYC, 4, 5).passed(5, 60).write(folder)
    assert Ledger.of(folder) == Ledger({EPYC: 60.0}, 15.0, 60, estimated=True)


def test_a_run_that_recorded_nothing_held_nothing(tmp_path):
    folder = run_folder(tmp_path)
    assert Ledger.of(folder) == Ledger()
    MetricsLog(folder, tensorboard=False).close()
    assert Ledger.of(folder) == Ledger()


def test_a_run_without_a_ledger_on_a_processor_without_a_name(tmp_path):
    folder = run_folder(tmp_path, rows=[{"wall_s": 2.0, "env_steps": 40}], cpu="", threads=3)
    assert Ledger.of(folder).core_seconds == {UNKNOWN_KIND: 6.0}


@pytest.mark.parametrize(
    "row", [{"env_steps": 40}, {"wall_s": math.nan, "env_steps": 4}, {"wall_s": "x", "env_steps": 4}]
)
def test_metrics_without_a_clock_are_no_estimate(tmp_path, row):
    with pytest.raises(UsageError, match=r"Expected `wall_s` in the last row of .*metrics\.parquet to be a finite"):
        Ledger.of(run_folder(tmp_path, rows=[row]))


# --- prices ---


def test_money_by_hand(tmp_path):
    prices = PriceBook.read(book(tmp_path / "p.toml", ("epyc", 0.02), ("*", "0.05")))
    found = price(Ledger().charge(EPYC, 64, 1800).charge(XEON, 2, 900), prices)
    assert [(line.kind, line.core_hours, line.number) for line in found.lines] == [
        (EPYC, 32.0, 1),
        (XEON, 0.5, 2),
    ]
    assert [line.money for line in found.lines] == pytest.approx([0.64, 0.025], rel=1e-12)
    assert found.total == pytest.approx(0.665, rel=1e-12)
    assert found.currency == "EUR" and found.lines[0].entry.source == "of epyc"


@pytest.mark.parametrize(
    ("kind", "first"),
    [
        (EPYC, "1: amd*7b13"),
        ("amd epyc 7b13", "1: amd*7b13"),
        ("AMD EPYC 9654", "2: EPYC"),
        ("7B13 AMD EPYC", "2: EPYC"),
        (XEON, "3: Xeon(R) CPU @ ?.20GHz"),
        ("Intel(R) Xeon(R) CPU @ 12.20GHz", "4: *"),
        (UNKNOWN_KIND, "4: *"),
    ],
)
def test_the_first_entry_that_matches_is_taken(tmp_path, kind, first):
    file = book(tmp_path / "p.toml", ("amd*7b13", 1), ("EPYC", 2), ("Xeon(R) CPU @ ?.20GHz", 3), ("*", 4))
    (line,) = price(Ledger().charge(kind, 1, 1), PriceBook.read(file)).lines
    assert f"{line.number}: {line.entry.kind}" == first and line.entry.price_per_core_hour == line.number


def test_a_core_of_one_s_own_may_cost_nothing(tmp_path):
    assert price(Ledger().charge(EPYC, 1, 3600), PriceBook.read(book(tmp_path / "p.toml", ("*", 0)))).total == 0


def test_a_core_without_a_price(tmp_path):
    prices = PriceBook.read(book(tmp_path / "p.toml", ("EPYC", 1)))
    with pytest.raises(UsageError, match=r"Expected a price for the core 'Intel.*' in .*p\.toml, found none: add"):
        price(Ledger().charge(XEON, 1, 1), prices)


CORE = '[[core]]\nkind = "*"\nprice_per_core_hour = 1\nsource = "s"\n'


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("currency =", r"Expected a price book in TOML in .*p\.toml, but it cannot be read"),
        (b"\xff", "cannot be read"),
        ("a = " + "[" * 100_000, "cannot be read"),
        (CORE, r"Expected a field `currency` in .*p\.toml, got none"),
        ('currency = "EUR"', r"Expected a field `core` in .*p\.toml, got none"),
        ('currency = "EUR"\ncore = []', r"Expected at least one \[\[core\]\] entry in .*p\.toml"),
        ('currency = "EUR"\ncore = 3', "Expected `core` .* to be a list, got 3"),
        ('currency = "EUR"\ncore = [3]', "Expected `core` entry 1 .* to be a table, got 3"),
        ('currency = "EUR"\n[core]\nkind = "*"', "Expected `core` .* to be a list, got"),
        ("currency = 3\n" + CORE, r"Expected `currency` in .*p\.toml to be text that is not empty, got 3"),
        ('currency = " "\n' + CORE, "Expected `currency` .* got ' '"),
        (
            'currency = "EUR"\ncolour = 1\n' + CORE,
            r"Expected no field `colour` in .*p\.toml, got one: the fields",
        ),
        (
            f'currency = "EUR"\n{CORE}colour = 1',
            r"Expected no field `colour` in .*p\.toml, `core` entry 1, got one",
        ),
        (f'currency = "EUR"\n{CORE.replace("source", "# ")}', r"Expected a field `source` in .* entry 1, got none"),
        (f'currency = "EUR"\n{CORE.replace("kind", "# ")}', "Expected a field `kind`"),
        (f'currency = "EUR"\n{CORE.replace("price_per_core_hour", "# ")}', "Expected a field `price_per_core_hour`"),
        (f'currency = "EUR"\n{CORE.replace("*", "")}', "Expected `kind` in .* to be text that is not empty, got ''"),
        (f'currency = "EUR"\n{CORE}{CORE}', r"to be the last in .*, got kind = '\*' in \[\[core\]\] entry 1 of 2"),
    ],
)
def test_a_price_book_is_read_strictly(tmp_path, text, message):
    file = tmp_path / "p.toml"
    file.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(UsageError, match=message):
        PriceBook.read(file)


@pytest.mark.parametrize("amount", ["-0.01", "nan", "inf", "-inf", "true", '"0.04"', "[1]", "1" + "0" * 400, "1e999"])
def test_a_price_is_a_finite_number_of_at_least_0(tmp_path, amount):
    with pytest.raises(UsageError, match=r"`price_per_core_hour` in .*p\.toml, `core` entry 2 to be a finite"):
        PriceBook.read(book(tmp_path / "p.toml", ("EPYC", 0.01), ("*", amount)))


def test_a_price_book_that_is_not_there(tmp_path, monkeypatch):
    with pytest.raises(
        UsageError, match=r"Expected a price book in .*none\.toml, found none\. `workhorse cost --help`"
    ):
        PriceBook.find(tmp_path / "none.toml")
    with pytest.raises(UsageError, match=r"Expected a price book in .*, but it cannot be read"):
        PriceBook.find(tmp_path)
    monkeypatch.setenv("WORKHORSE_PRICES", "other.toml")
    with pytest.raises(UsageError, match=r"in other\.toml \(named by \$WORKHORSE_PRICES\), found none"):
        PriceBook.find()


def test_the_order_of_the_search(tmp_path, monkeypatch):
    """From the last place to the first: each one that appears is preferred to those before."""
    home = tmp_path / "home"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("XDG_CONFIG_HOME", "relative/paths/do/not/count")
    assert PriceBook.find().is_built_in
    found = []
    for place in (
        home / ".config/workhorse/prices.toml",
        tmp_path / "config/workhorse/prices.toml",
        tmp_path / "here/prices.toml",
        tmp_path / "named.toml",
        tmp_path / "given.toml",
    ):
        book(place, ("*", 1), currency=f"C{len(found)}")
        if "config/" in str(place) and ".config" not in str(place):
            monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
        if place.name == "named.toml":
            monkeypatch.setenv("WORKHORSE_PRICES", str(place))
        prices = PriceBook.find(place if place.name == "given.toml" else None)
        found.append(prices.currency)
        assert not prices.is_built_in
    assert found == ["C0", "C1", "C2", "C3", "C4"]
    monkeypatch.setenv("WORKHORSE_PRICES", "")
    assert PriceBook.find().currency == "C2"


def test_the_built_in_prices_say_that_they_are_assumed():
    prices = PriceBook.find()
    assert prices.path == BUILT_IN_PRICES
    assert [(entry.kind, entry.price_per_core_hour) for entry in prices.entries] == [("*", 0.04)]
    assert "assumption" in prices.entries[0].source
    assert price(Ledger().charge("any core", 100, 3600), prices).total == pytest.approx(4.0)
