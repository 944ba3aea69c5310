"""Published numbers add up, ours stand beside them and never in their place, writers escape."""

import csv
import io
import tomllib
from importlib import resources
from pathlib import Path

import pandas as pd
import pytest

from minipsync.evaluation import protocols
from minipsync.evaluation.results import summarise
from minipsync.report import published as tables
from minipsync.report.published import published, side_by_side
from minipsync.report.writers import to_csv, to_latex, to_markdown, to_text

REPO = Path(__file__).resolve().parents[2]
FILES = sorted(REPO.glob("minipsync/report/published/*.csv"))
HEADER = ["table", "method", "dataset", "value", "source", "note", "status"]
DG = "domain_generalisation"
# printed averages that their printed parts do not give; each is marked in its note
CONFLICTS = {("domain_generalisation", "TPT+CoCoOp", "ood_average"),
             ("domain_generalisation_list", "TPS+CoOp", "ood_average")}


def value(table, method, dataset):
    rows = published(table)
    return rows.loc[(rows["method"] == method) & (rows["dataset"] == dataset), "value"].item()


# ---- the files --------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_file_is_well_formed(path):
    with path.open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows and all(list(row) == HEADER and None not in row.values() for row in rows)
    for row in rows:
        gain = row["table"] == "claimed_gains"
        assert (-100 if gain else 0) <= float(row["value"]) <= 100, row
        assert all(row[name] == row[name].strip() for name in HEADER), row
        assert row["method"] and row["dataset"] and row["source"] and row["status"] in ("", "typo"), row
        assert row["status"] == "" or "not a target" in row["note"], row
        assert row["table"] in tables.TABLES, row


def test_files_are_packaged():
    assert len(FILES) == 10
    project = tomllib.loads((REPO / "pyproject.toml").read_text())
    assert "report/published/*.csv" in project["tool"]["setuptools"]["package-data"]["minipsync"]
    found = {f.name for f in resources.files("minipsync.report").joinpath("published").iterdir()}
    assert {path.name for path in FILES} <= found


def test_one_number_per_method_and_dataset():
    targets = published()
    assert not targets.duplicated(["table", "method", "dataset"]).any()
    assert not published(typos=True).duplicated(["table", "method", "dataset", "value"]).any()
    assert set(targets["table"]) == set(tables.TABLES)


def test_typos_are_hidden_and_have_a_right_number_or_none():
    everything = published(typos=True)
    typos = everything[everything["status"] == "typo"]
    assert set(zip(typos["method"], typos["dataset"], typos["value"], strict=True)) == {
        ("CLIP", "sketch", 46.06), ("TPT", "v2", 64.35), ("PromptAlign", "sketch", 56.23),
        ("PromptAlign", "sketch", 59.37)}
    assert len(published()) == len(everything) - 4 and not (published()["status"] == "typo").any()
    assert value("domain_generalisation", "PromptAlign", "sketch") == 50.23
    assert value("domain_generalisation", "TPT", "v2") == 63.45
    assert value("domain_generalisation", "CLIP", "sketch") == 46.09


def test_printed_averages_fit_their_parts():
    """Parts and average are rounded to 0.01: their mean may be off by 0.005 + 0.005."""
    seen, off = 0, set()
    for (table, method), rows in published().groupby(["table", "method"]):
        printed = rows.set_index("dataset")["value"]
        single = printed[[name for name in printed.index if not name.endswith("average")]]
        for name, parts in (("ood_average", single.filter(list(protocols.OOD))), ("average", single)):
            if name in printed and len(parts) >= 4:
                seen += 1
                if abs(parts.mean() - printed[name]) > 0.0101:
                    off.add((table, method, name))
    assert seen == 9 + 7 + 2 * 7 + 8 + 4                  # PromptAlign's list is without Sketch
    assert off == CONFLICTS
    notes = published().set_index(["table", "method", "dataset"])["note"]
    assert all("conflict" in notes[key] for key in CONFLICTS)


def test_typos_do_not_fit_the_printed_average():
    for method, dataset, wrong in (("TPT", "v2", 64.35), ("PromptAlign", "sketch", 56.23),
                                   ("CLIP", "sketch", 46.06)):
        parts = {name: value("domain_generalisation", method, name) for name in protocols.OOD}
        parts |= {dataset: wrong}
        average = sum(parts.values()) / 4
        assert round(average, 2) != value("domain_generalisation", method, "ood_average")


def test_harmonic_means_and_gains_fit():
    seen = 0
    for _, rows in published().groupby(["table", "method"]):
        printed = rows.set_index(rows["dataset"].str.rpartition("_")[2])["value"]
        if "hm" in printed and rows["table"].iloc[0].startswith("base_to_novel"):
            seen += 1
            base, novel = printed["base"], printed["novel"]
            assert 2 * base * novel / (base + novel) == pytest.approx(printed["hm"], abs=0.0101)
    assert seen == 7 + 2 + 3

    def gain(table, better, worse, dataset):
        return value(table, better, dataset) - value(table, worse, dataset)

    for dataset in ("average_novel", "average_hm"):
        claim = value("claimed_gains", "MaPLe over CoCoOp", dataset)
        assert gain("base_to_novel", "MaPLe", "CoCoOp", dataset) == pytest.approx(claim)
    assert gain("cross_dataset", "PromptAlign", "TPT", "average") == pytest.approx(
        value("claimed_gains", "PromptAlign", "cross_dataset"))
    cars = {part: value("claimed_gains", "CoCoOp over CoOp", f"stanford_cars_{part}")
            for part in ("base", "novel", "overall")}
    assert cars["base"] + cars["novel"] == pytest.approx(cars["overall"])
    # a conflict between abstract and table, told in the note
    assert gain("domain_generalisation", "PromptAlign", "MaPLe", "ood_average") == pytest.approx(3.27)
    assert value("claimed_gains", "PromptAlign over MaPLe", "domain_generalisation") == 3.08


def test_two_sources_of_one_number_agree():
    first, second = published("domain_generalisation"), published("domain_generalisation_list")
    both = first.merge(second, on=["method", "dataset"])
    assert len(both) == 5 * 4 + 4 and (both["value_x"] == both["value_y"]).all()


def test_nothing_is_filled_in():
    rows = published()
    assert set(rows.loc[rows["method"].str.contains("PromptSync"), "table"]) == {"claimed_gains"}
    proda = rows[rows["method"] == "ProDA"]
    assert len(proda) == 9 and not {"sun397", "ucf101"} & set(proda["dataset"])
    assert not {65.88, 69.76} & set(rows["value"])        # arithmetic on an assumption, nowhere printed


def test_published_gives_a_copy_and_names_the_tables():
    changed = published("pug")
    changed["value"] = 0
    assert value("pug", "PromptAlign", "pug_worlds") == 43.24
    with pytest.raises(ValueError, match=r"'pugs'.*expected one of.*pug.*Did you mean 'pug'\?"):
        published("pugs")


# ---- ours beside them -------------------------------------------------------------------------------
def ours(**changes):
    """MaPLe on the four sets; accuracy = published + 0, + 3, - 3, + 0 points, interval ± 1 point."""
    accuracy = [0.6407, 0.5215, 0.4790, 0.7698]
    rows = pd.DataFrame({"method": "maple", "dataset": ["v2", "sketch", "a", "r"], "accuracy": accuracy,
                         "low": [x - 0.01 for x in accuracy], "high": [x + 0.01 for x in accuracy], "n": 500})
    return rows.assign(**changes)


def test_full_results_stand_beside_the_published_ones():
    table = side_by_side(ours(), "domain_generalisation", "full")
    assert list(table) == ["method", "dataset", "published", "ours", "low", "high", "n", "verdict"]
    assert len(table) == len(published("domain_generalisation"))
    row = table[table["method"] == "MaPLe"].set_index("dataset")
    assert list(row["verdict"]) == ["not told apart", "higher", "lower", "not told apart", "not told apart"]
    assert list(row.loc["sketch", ["published", "ours", "low", "high", "n"]]) == pytest.approx(
        [49.15, 52.15, 51.15, 53.15, 500])
    # four independent intervals of ± 1 point: their mean has ± 1/2, and 2,000 images
    assert list(row.loc["ood_average", ["published", "ours", "low", "high", "n"]]) == pytest.approx(
        [60.28, 60.275, 59.775, 60.775, 2000])
    assert table.loc[table["method"] == "CLIP", "ours"].isna().all()


def test_ours_without_a_published_number_comes_last_and_has_no_verdict():
    rows = pd.concat([ours(), ours(method="promptsync")]).iloc[:7]
    table = side_by_side(rows, "domain_generalisation", "full")
    tail = table.tail(3)
    assert set(tail["method"]) == {"PromptSync"} and tail["published"].isna().all()
    assert set(tail["verdict"]) == {""} and list(tail["dataset"]) == ["v2", "sketch", "a"]


def test_a_result_will_do_and_typos_are_no_targets():
    records = pd.DataFrame({"label": range(10), "correct": [1] * 5 + [0] * 5, "confidence": 0.5,
                            "seconds": 0.1})
    results = [summarise("promptalign", "sketch", 0, records), summarise("zero_shot", "r", 0, records)]
    for given in (results, results[0]):
        table = side_by_side(given, "domain_generalisation", "full").set_index(["method", "dataset"])
        row = table.loc[("PromptAlign", "sketch")]
        assert row["published"] == 50.23 and row["ours"] == 50 and row["n"] == 10
        assert row["verdict"] == "not told apart"


def test_mini_results_are_labelled_and_never_joined():
    table = side_by_side(ours(), "domain_generalisation", "mini")
    mini = table[table["ours"].notna()]
    assert list(mini["dataset"]) == ["mini v2", "mini sketch", "mini a", "mini r", "mini ood_average"]
    assert mini["published"].isna().all() and set(table["verdict"]) == {""}
    assert len(table) == len(published("domain_generalisation")) + 5


@pytest.mark.parametrize("results, table, benchmark, says", [
    (ours(), DG, None, 'benchmark=None: expected "full".*"mini"'),
    (ours(), DG, "medium", "benchmark='medium': expected"),
    (ours(benchmark="mini"), DG, "full", "benchmark='full'.*say mini.*never stand.*pass"),
    (ours(benchmark=["mini", "full"] * 2), DG, "mini", "say full, mini"),
    (ours(), "cross_datasets", "full", "'cross_datasets': .*Did you mean 'cross_dataset'"),
    (ours(), "claimed_gains", "full", "'claimed_gains': expected a table of accuracies, one of: domain_gen"),
    (ours(), None, "full", "None: expected a table of accuracies"),
    (ours(), "pug", "full", "no result belongs in table 'pug': got MaPLe on v2.*TPT.* on pug_camera_yaw"),
    (ours(accuracy=64.07), DG, "full", r"accuracy=64.07: expected a fraction.*by 100"),
    (ours(low=float("nan")), DG, "full", "low=nan: expected a fraction"),
    (pd.concat([ours(), ours()]), DG, "full", "MaPLe on v2 comes more than once.*choose"),
    (ours().drop(columns=["low", "n"]), DG, "full", "expected rows with.*low, n missing"),
    (ours().iloc[:0], DG, "full", "there are none"),
])
def test_refusals_name_value_and_mend(results, table, benchmark, says):
    with pytest.raises(ValueError, match=says):
        side_by_side(results, table, benchmark)


def test_results_say_where_their_pictures_are_from():
    """A folder of one's own that is called "sketch" is not the papers' Sketch, nor is a part of that."""
    records = pd.DataFrame({"label": range(10), "correct": [1] * 5 + [0] * 5, "confidence": 0.5,
                            "seconds": 0.1})
    found = {origin: summarise("maple", "sketch", 0, records, origin=origin)
             for origin in ("", "full", "partial", "mini", "own")}
    for origin in ("", "full"):
        table = side_by_side(found[origin], DG, "full").set_index(["method", "dataset"])
        row = table.loc[("MaPLe", "sketch")]
        assert row[["published", "ours"]].tolist() == [49.15, 50]
    for origin in ("mini", "own"):
        with pytest.raises(ValueError, match=f"the results say {origin}"):
            side_by_side(found[origin], DG, "full")
    with pytest.raises(ValueError, match="the results say full"):
        side_by_side(found["full"], DG, "mini")
    table = side_by_side([found["partial"], found[""]], DG, "full").set_index("dataset")
    assert table.loc["sketch (partial)", ["method", "ours", "verdict"]].tolist() == ["MaPLe", 50, ""]


@pytest.mark.parametrize("path", sorted(REPO.glob("results/mini/*.csv")), ids=lambda path: path.stem)
def test_measured_mini_numbers_never_stand_beside_printed_ones(path):
    rows = pd.read_csv(path)
    if {"method", "n", "accuracy"} <= set(rows) and path.stem != "settings":
        assert set(rows["origin"]) == {"mini"}
        with pytest.raises(ValueError, match="the results say mini"):
            side_by_side(rows, DG, "full")


# ---- writers ----------------------------------------------------------------------------------------
@pytest.fixture
def awkward():
    return pd.DataFrame({"95 %": ["1 | 2", "R&D"], "n_all": pd.array([3, None], dtype="Int64"),
                         "x": [2.345, float("nan")]}, index=pd.Index(["a\nb", "c"], name="name"))


def test_markdown(awkward):
    assert to_markdown(awkward, digits=1).splitlines() == [
        "| name | 95 % | n_all | x |", "| --- | --- | ---: | ---: |",
        r"| a b | 1 \| 2 | 3 | 2.3 |", "| c | R&D | – | – |"]
    wide = pd.DataFrame({("a", "b"): [0, 1]}).iloc[[1]]  # columns of two levels, an index that only counts
    assert to_markdown(wide) == "| a b |\n| ---: |\n| 1 |"
    assert to_markdown(awkward.iloc[:0]).count("\n") == 1


def test_latex(awkward):
    lines = to_latex(awkward.reset_index(drop=True)).splitlines()
    assert lines[0] == r"\begin{tabular}{lrr}" and lines[-1] == r"\end{tabular}"
    assert r"95 \% & n\_all & x \\" in lines and r"R\&D & – & – \\" in lines


def test_text_and_csv(awkward):
    assert to_text(awkward, digits=1).splitlines()[-1].split() == ["c", "R&D", "–", "–"]
    back = pd.read_csv(io.StringIO(to_csv(awkward)), index_col="name")
    assert back.loc["a\nb", "x"] == 2.345 and back["n_all"].isna().tolist() == [False, True]


def test_a_table_beside_the_papers_can_be_written_four_ways():
    table = side_by_side(ours(), "domain_generalisation", "full")
    texts = [writer(table) for writer in (to_text, to_markdown, to_csv, to_latex)]
    words = ("MaPLe", "49.15", "52.15", "not told apart")
    assert all(word in text for text in texts for word in words)
