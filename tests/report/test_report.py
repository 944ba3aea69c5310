"""Tables from record files: what is read, what is averaged, what is told apart, and the numbers by hand."""

import io
import math
import shutil

import pandas as pd
import pytest
from test_evaluation import Colours, Guess

from minipsync.data.mini import TRANSFER
from minipsync.data.own import split_half
from minipsync.evaluation import resampling
from minipsync.evaluation.evaluate import evaluate
from minipsync.evaluation.records import RecordFile
from minipsync.evaluation.results import compare, wilson
from minipsync.evaluation.rows import COLUMNS
from minipsync.methods import REGISTRY
from minipsync.report.papers import TABLES, load_runs, report
from minipsync.report.published import published
from minipsync.report.writers import to_csv, to_latex, to_markdown, to_text

MINI, FULL = "0123mini", "4567full"
WORDS = {"n_ctx": 4, "init": "a photo of a"}              # of the CoOp that the tables print
PARTS = [d for d in published("cross_dataset")["dataset"].unique() if d != "average"]


def rows(right, first=0, seconds=0.002):
    """Records of images `first`, `first` + 1, …; `right`: a string of 1 and 0."""
    values = [(f"{i}.png", i % 20, i % 20 if bit == "1" else 20, int(bit), 0.5, 1.0, 1.0, "0 1 2 3 4",
               seconds, 0, "abc") for i, bit in enumerate(right, start=first)]
    return [dict(zip(list(COLUMNS)[:-1], value, strict=True)) for value in values]


def describe(method="maple", dataset="sketch", backbone=MINI, prompts=None, image_seed=0, source="s",
             code="c", classes="3, abc", **config):
    """As identity.describe_run; `seed` is one of the config."""
    return {"method": method, "dataset": dataset, "seed": image_seed, "config": {"seed": 1, **config},
            "prompts": prompts or f"p{config.get('seed', 1)}", "source": source, "extra": None,
            "code": code, "backbone": backbone, "precision": "fp32", "classes": classes, "images": "9, def",
            "content": "fed"}


def write(folder, right, rank=None, first=0, seconds=0.002, facts=None, **run):
    about = describe(**run)
    stem, half = split_half(about["dataset"])
    facts = {"origin": "mini" if about["backbone"] == MINI else "full", "model": "ViT-B-16/openai",
             "trained_on": f"{stem}_base" if half else "imagenet"} | (facts or {})
    with RecordFile(folder, about, rank, facts) as file:
        file.append(rows(right, first, seconds))
    return file.path


def ones(k, n=100):
    return "1" * k + "0" * (n - k)


def cells(table, **where):
    """The only row of `table` where these columns have these values."""
    for name, value in where.items():
        table = table[table[name] == value]
    assert len(table) == 1, table
    return table.iloc[0]


# ---- reading ----------------------------------------------------------------------------------------
def test_what_evaluate_wrote_is_read_back(tmp_path):
    result = evaluate(Guess(), Colours(), limit=20, records=tmp_path / "deep/er", progress=False)
    [run] = load_runs(tmp_path)
    assert (run.method, run.dataset, run.seed, run.config, run.path) == (
        "guess", "colours", 0, {"noise": 3.0}, result.path)
    assert run.key == run.path.stem.split("-")[-1] and run.backbone is None and len(run.records) == 20
    assert (run.result.accuracy, run.result.interval, run.result.ece) == (
        result.accuracy, result.interval, result.ece)
    assert run.result.seconds_per_image == pytest.approx(result.seconds_per_image)


def test_torn_lines_and_rank_files_and_nothing_written(tmp_path):
    path = write(tmp_path, "1100")
    with path.open("a") as file:
        file.write("4.png,1,1,1,0.5")                     # torn
    write(tmp_path, "111", rank=0, first=3)               # 3.png is in the run's own file already
    write(tmp_path, "0", rank=1, first=6)
    write(tmp_path, "10", rank=1, dataset="r")            # a run that has no file of its own yet
    (tmp_path / "new.csv").write_text("image,lab")        # killed while it was begun
    (tmp_path / "new.run.json").write_text("{}")
    (tmp_path / "table.csv").write_text("method,accuracy\n")
    write(tmp_path, "", dataset="a")                      # no rows
    shutil.copytree(tmp_path, tmp_path / "copy")
    before = {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in tmp_path.rglob("*") if p.is_file()}
    runs = {run.dataset: run for run in load_runs(tmp_path)}
    assert before == {p: (p.read_bytes(), p.stat().st_mtime_ns) for p in tmp_path.rglob("*") if p.is_file()}
    assert set(runs) == {"sketch", "r"} and runs["sketch"].path in (path, tmp_path / "copy" / path.name)
    assert dict(zip(runs["sketch"].records["image"], runs["sketch"].records["correct"], strict=True)) == {
        f"{i}.png": int(bit) for i, bit in enumerate("1100110")}
    assert runs["sketch"].result.accuracy == 4 / 7 and runs["r"].result.n == 2


@pytest.mark.parametrize("spoil, says", [
    (lambda p: p.write_text(p.read_text() + "only,two\n"), r"line 5 is not a record"),
    (lambda p: p.write_bytes(p.read_bytes() + b"\xff,0,0,1,.5,1,1,0,0,0,key\n"), "line 5 is not a record"),
    (lambda p: p.write_text(p.read_text().replace("1.png,1,1,1", "1.png,1,1,7")), "line 3.*0 or 1"),
    (lambda p: p.write_text(p.read_text() + p.read_text().split("\n")[-2][:-3] + "xyz\n"), "line 5.*key"),
    (lambda p: p.write_text(p.read_text().replace("label", "lable")), "first line"),
    (lambda p: p.with_suffix(".run.json").unlink(), "run.json is broken or missing"),
    (lambda p: p.with_suffix(".run.json").write_text("{"), "run.json is broken"),
    (lambda p: p.with_suffix(".run.json").write_text('["run"]'), "run.json is broken"),
    (lambda p: p.with_suffix(".run.json").write_text(
        p.with_suffix(".run.json").read_text().replace("maple", "coop")), "run.json is broken.*stands for"),
])
def test_broken_files_are_named(tmp_path, spoil, says):
    write(tmp_path, "11", dataset="r")
    path = write(tmp_path, "110")
    spoil(path)
    with pytest.raises(ValueError, match=says) as error:
        load_runs(tmp_path)
    assert path.stem in str(error.value)


def test_no_folder(tmp_path):
    with pytest.raises(ValueError, match="nowhere' is not a folder"):
        load_runs(tmp_path / "nowhere")
    assert load_runs(tmp_path) == []


# ---- seeds and settings -----------------------------------------------------------------------------
def test_seeds_are_averaged(tmp_path):
    for seed, k in ((1, 50), (2, 60), (3, 70)):
        write(tmp_path, ones(k), method="coop", seed=seed, **WORDS)
        write(tmp_path, ones(k), method="tpt", prompts=f"p{seed}", source=f"s{seed}")  # prompts from outside
    table = report("domain_generalisation", load_runs(tmp_path), "mini")
    for method in ("CoOp", "TPT"):
        row = cells(table, method=method, dataset="mini sketch")
        assert row[["ours", "n", "seeds"]].tolist() == [pytest.approx(60), 100, 3]
        assert row["std"] == pytest.approx(100 * math.sqrt(0.02 / 3))
        assert (row["low"], row["high"]) == pytest.approx([100 * x for x in wilson(60, 100)])
    assert table["ours"].count() == 2 and table.attrs["left_out"] == ""


def test_only_the_images_of_all_seeds_count(tmp_path):
    write(tmp_path, ones(60), method="coop", seed=1, **WORDS)
    write(tmp_path, ones(10, 40), method="coop", seed=2, **WORDS)                # still at work
    table = report("domain_generalisation", load_runs(tmp_path), "mini")
    row = cells(table, method="CoOp", dataset="mini sketch")
    assert row[["ours", "n", "seeds"]].tolist() == [pytest.approx((100 + 25) / 2), 40, 2]
    assert table.attrs["left_out"].startswith("60 record(s) of coop on sketch")
    write(tmp_path, "1", first=500, method="coop", seed=3, **WORDS)
    with pytest.raises(ValueError, match="3 seeds of coop on sketch have no image in common"):
        report("domain_generalisation", load_runs(tmp_path), "mini")


def labels(folder, name="latency"):
    return sorted(report(name, load_runs(folder), "mini")["method"])


def test_a_seed_of_views_that_follows_is_no_setting(tmp_path):
    """Runs of three seeds are one group, whether their records know of view_seed or are older."""
    for seed, more in ((1, {}), (2, {"view_seed": 2}), (3, {"view_seed": 3})):
        write(tmp_path, "10", method="promptsync", seed=seed, **more)
    assert labels(tmp_path) == ["promptsync"]
    write(tmp_path, "10", method="promptsync", seed=1, view_seed=5)
    assert labels(tmp_path) == ["promptsync", "promptsync [view_seed=5]"]


def test_settings_are_told_apart(tmp_path):
    default = REGISTRY["promptsync"].Config()
    for steps, views in ((default.steps, 127), (2, 127), (2, 7)):
        write(tmp_path, "10", method="promptsync", steps=steps, n_views=views)
    assert labels(tmp_path) == ["promptsync", "promptsync [n_views=7, steps=2]", "promptsync [steps=2]"]
    write(tmp_path, "10", method="promptsync", n_views=7, steps=2, seed=2)       # a seed more, nothing else
    assert len(labels(tmp_path)) == 3
    write(tmp_path, "10", method="promptsync", n_views=7, steps=2, code="new")
    assert "promptsync [n_views=7, steps=2, code=new]" in labels(tmp_path) and len(labels(tmp_path)) == 4
    write(tmp_path, "10", method="mine", parts=["a", "b"])                       # no defaults are known
    write(tmp_path, "10", method="mine", parts=["a"], image_seed=3)
    assert {"mine [parts=a b, sample_seed=0]", "mine [parts=a, sample_seed=3]"} <= set(labels(tmp_path))


def test_the_same_seed_with_other_prompts_was_trained_otherwise(tmp_path):
    write(tmp_path, "10", method="coop", prompts="one")
    write(tmp_path, "11", method="coop", prompts="two")
    write(tmp_path, "11", method="tpt", source="x")
    write(tmp_path, "11", method="tpt", source="y")
    assert labels(tmp_path) == ["coop [prompts=one]", "coop [prompts=two]",
                                "tpt [source=x]", "tpt [source=y]"]


def test_what_differs_between_data_sets(tmp_path):
    for dataset in ("sketch", "r"):                       # whatever is not the method's own is said
        write(tmp_path, "10", method="zero_shot", dataset=dataset, template=f"a {dataset} of a {{}}.")
        write(tmp_path, "10", method="tpt", dataset=dataset, steps=3 if dataset == "r" else 1)
    others = ["zero_shot [template=a r of a {}.]", "zero_shot [template=a sketch of a {}.]"]
    assert labels(tmp_path) == ["tpt", "tpt [steps=3]", *others]
    write(tmp_path, "10", method="zero_shot", template="a photo of a {}.")
    assert labels(tmp_path)[2:] == ["zero_shot", *others]


# ---- accuracies -------------------------------------------------------------------------------------
def four(folder, backbone, **run):
    for k, dataset in zip((50, 60, 70, 80), ("v2", "sketch", "a", "r"), strict=True):
        write(folder, ones(k), dataset=dataset, backbone=backbone, **run)


def test_full_stands_beside_the_paper_and_mini_does_not(tmp_path):
    four(tmp_path, FULL, depth=REGISTRY["maple"].Config().depth)
    four(tmp_path, FULL, depth=2)
    write(tmp_path, "111", backbone=MINI)
    table = report("domain_generalisation", load_runs(tmp_path), "full")
    row = cells(table, method="MaPLe", dataset="sketch")
    assert row[["published", "ours", "n", "seeds"]].tolist() == [49.15, 60, 100, 1]
    assert row["verdict"] == "higher" and row["low"] == pytest.approx(100 * wilson(60, 100)[0])
    assert math.isnan(row["std"])                         # of one seed
    row = cells(table, method="MaPLe", dataset="ood_average")
    assert row[["published", "ours", "n"]].tolist() == [60.28, pytest.approx(65), 400]
    bits = "".join(map(ones, (50, 60, 70, 80)))            # the sets share their classes
    _, low, _ = resampling.class_interval([int(b) for b in bits], [i % 20 for i in range(400)])
    assert row["low"] == pytest.approx(100 * low)
    other = cells(table, method="maple [depth=2]", dataset="ood_average")
    assert other["ours"] == pytest.approx(65) and math.isnan(other["published"])
    assert cells(table, method="CLIP", dataset="v2")["published"] == 60.86
    assert table.attrs["left_out"] == "1 run(s) of other benchmarks than full"
    table = report("domain_generalisation", load_runs(tmp_path), "mini")
    assert cells(table, dataset="mini sketch")["ours"] == 100 and table["ours"].count() == 1
    assert table.attrs["left_out"] == "8 run(s) of other benchmarks than mini"


def test_what_no_paper_printed_still_has_its_table(tmp_path):
    four(tmp_path, FULL, method="promptsync")
    table = report("domain_generalisation", load_runs(tmp_path), "full")
    row = cells(table, method="PromptSync", dataset="ood_average")
    assert row["ours"] == pytest.approx(65) and row["verdict"] == "" and row["n"] == 400
    assert len(table) == len(published("domain_generalisation")) + 5
    assert cells(table, method="MaPLe", dataset="r")["published"] == 76.98
    assert str(table["n"].dtype) == "Int64"


@pytest.mark.parametrize(("method", "settings", "facts", "label", "dataset", "published"), [
    ("promptalign", {}, {}, "PromptAlign", "sketch", 50.23),
    ("promptalign", {"steps": 2}, {}, "promptalign [steps=2]", "sketch", None),       # alone, and yet told
    ("promptalign", {"fine_grained": True}, {}, "promptalign [fine_grained=True]", "sketch", None),
    ("tpt", {"start": "coop"}, {}, "TPT+CoOp", "sketch", 49.29),
    ("tpt", {"start": "coop", "steps": 2}, {}, "tpt [steps=2, start=coop]", "sketch", None),
    ("coop", WORDS, {}, "CoOp", "sketch", 47.99),
    ("coop", {"n_ctx": 16, "init": None}, {}, "coop [n_ctx=16]", "sketch", None),
    ("maple", {}, {"model": "ViT-B-32/openai"}, "MaPLe (ViT-B-32/openai)", "sketch", None),
    ("maple", {}, {"model": "ViT-B-16/mine.pt"}, "MaPLe (ViT-B-16/mine.pt)", "sketch", None),
    ("zero_shot", {}, {"model": "RN50/openai"}, "CLIP", "sketch", 33.37),
    ("maple", {}, {"origin": "partial"}, "MaPLe", "sketch (partial)", None)])
def test_printed_numbers_stand_beside_runs_as_theirs_only(tmp_path, method, settings, facts, label, dataset,
                                                          published):
    write(tmp_path, ones(60), backbone=FULL, method=method, facts=facts, **settings)
    table = report("domain_generalisation", load_runs(tmp_path), "full")
    row = cells(table[table["ours"].notna()])
    assert row[["method", "dataset", "ours"]].tolist() == [label, dataset, 60]
    assert math.isnan(row["published"]) if published is None else row["published"] == published
    assert (row["verdict"] == "") == (published is None)


def test_derived_settings_are_the_methods_own(tmp_path):
    from minipsync.methods.promptalign import PromptAlignConfig
    config = vars(PromptAlignConfig(fine_grained=True))               # lr 5e-4 follows from it
    write(tmp_path, ones(60), backbone=FULL, method="promptalign", dataset="dtd", **config)
    write(tmp_path, ones(50), backbone=FULL, method="tpt", dataset="sketch", start="coop")
    write(tmp_path, ones(50), backbone=FULL, method="tpt", dataset="sketch", steps=2)
    runs = load_runs(tmp_path)
    row = cells(report("cross_dataset", runs, "full"), method="PromptAlign", dataset="dtd")
    assert row["ours"] == 60 and row["published"] > 0
    table = report("domain_generalisation", runs, "full")            # another run takes no name away
    assert cells(table, method="TPT+CoOp", dataset="sketch")["ours"] == 50


def test_precision_is_told(tmp_path):
    about = describe(backbone=FULL) | {"precision": "bf16"}
    with RecordFile(tmp_path, about, facts={"origin": "full", "model": "ViT-B-16/openai"}) as file:
        file.append(rows(ones(60)))
    table = report("domain_generalisation", load_runs(tmp_path), "full")
    assert cells(table[table["ours"].notna()])["method"] == "maple [precision=bf16]"


def test_base_to_novel_compares_its_own_prompts_and_backbone_only(tmp_path):
    for name in [*PARTS, "imagenet"]:
        halves(tmp_path, name, 80, 60, backbone=FULL, depth=9, facts={"model": "ViT-B-32/openai"})
        halves(tmp_path, name, 80, 60, backbone="x", depth=9, facts={"trained_on": "imagenet"})
    halves(tmp_path, "dtd", 70, 50, backbone=FULL, facts={"origin": "partial"}, depth=2)
    table = report("base_to_novel", load_runs(tmp_path), "full")
    mine = table[table["base"].notna()]
    assert mine["base_published"].isna().all()
    assert set(mine["method"]) == {"MaPLe (ViT-B-32/openai)", "maple [depth=2]"}
    assert cells(mine, method="maple [depth=2]")["dataset"] == "dtd (partial)"
    assert table.attrs["left_out"].startswith("22 run(s) on a half with prompts that were not learned on its")


def test_own_data_are_a_benchmark_of_their_own(tmp_path):
    write(tmp_path, ones(60), backbone=FULL, facts={"origin": "own"})     # a folder that is called "sketch"
    write(tmp_path, ones(50), method="zero_shot", facts={"origin": "own"})
    runs = load_runs(tmp_path)
    for benchmark in ("mini", "full"):
        with pytest.raises(ValueError, match="no run belongs"):
            report("paired", runs, benchmark)
    assert set(report("latency", runs, "own")["dataset"]) == {"own sketch"}


def test_prompts_from_elsewhere_are_left_out_of_transfer(tmp_path):
    write(tmp_path, ones(60), dataset="animals", method="coop", facts={"trained_on": "animals"}, **WORDS)
    write(tmp_path, ones(50), dataset="animals", method="cocoop")
    table = report("cross_dataset", load_runs(tmp_path), "mini")
    assert cells(table[table["ours"].notna()])["method"] == "CoCoOp"
    assert table.attrs["left_out"] == "1 run(s) with prompts that were not learned on imagenet"


def test_the_same_prompts_under_two_seeds_are_one_seed(tmp_path):
    write(tmp_path, ones(60), seed=1, prompts="p")
    write(tmp_path, ones(60), seed=7, prompts="p")
    table = report("domain_generalisation", load_runs(tmp_path), "mini")
    assert cells(table, method="MaPLe", dataset="mini sketch")["seeds"] == 1
    assert table.attrs["left_out"] == "1 run(s) of maple on sketch, with the prompts of another seed"


def test_how_many_images_were_asked_for(tmp_path):
    write(tmp_path, ones(60), facts={"images": 1000, "skipped": ["x.png"]})
    row = cells(report("latency", load_runs(tmp_path), "mini"), method="maple")
    assert row[["n", "of"]].tolist() == [100, 1000]


def test_pictures_that_are_not_among_the_n_stand_below_the_table(tmp_path):
    facts = {"images": 110, "skipped": ["x.png", "y.png"], "found": 113, "left_out": {"kind not read": 3}}
    write(tmp_path, ones(60), facts=facts)
    write(tmp_path, ones(50), method="zero_shot", facts=facts)
    runs = load_runs(tmp_path)
    assert runs[0].result.found == 113 and len(runs[0].result.skipped) == 2
    for name in ("latency", "paired", "domain_generalisation"):
        assert report(name, runs, "mini").attrs["left_out"] == (
            "sketch: 3 kind not read; sketch: 2 that cannot be read ('x.png', 'y.png')"), name
    write(tmp_path / "clean", ones(60))
    assert report("latency", load_runs(tmp_path / "clean"), "mini").attrs["left_out"] == ""


def test_imagenet_itself_was_printed_in_another_list(tmp_path):
    write(tmp_path, ones(70), dataset="imagenet", backbone=FULL, method="tpt")
    four(tmp_path, FULL)
    table = report("domain_generalisation", load_runs(tmp_path), "full")
    assert cells(table, method="TPT", dataset="imagenet")[["published", "ours"]].tolist() == [68.98, 70]
    assert cells(table, method="MaPLe", dataset="ood_average")["published"] == 60.28
    assert set(table["dataset"]) == {"imagenet", "v2", "sketch", "a", "r", "ood_average"}


def test_the_printed_ablation_of_promptalign(tmp_path):
    for settings in ({}, {"weight": 0.0}, {"entropy": False}, {"weight": 7.0}):
        write(tmp_path, ones(60), dataset="a", method="promptalign", backbone=FULL,
              **{"weight": 100.0, "entropy": True, **settings})
    table = report("ablation", load_runs(tmp_path), "full")
    printed = {(row.weight, row.entropy): row.published for row in table.itertuples()}
    assert [printed[key] for key in ((100, True), (0, True), (100, False))] == [59.37, 58.08, 50.85]
    assert math.isnan(printed[7, True])


def test_cross_dataset_and_pug(tmp_path):
    for i, (mini, full) in enumerate(zip(TRANSFER, PARTS, strict=True)):
        write(tmp_path, ones(50 + i), dataset=mini)
        write(tmp_path, ones(50 + i), dataset=full, backbone=FULL)
    write(tmp_path, "10", dataset="pug_worlds", backbone=FULL)
    runs = load_runs(tmp_path)
    assert cells(report("cross_dataset", runs, "mini"), dataset="mini average")["ours"] == pytest.approx(54.5)
    row = cells(report("cross_dataset", runs, "full"), method="MaPLe", dataset="average")
    assert row[["published", "ours"]].tolist() == pytest.approx([66.30, 54.5])
    row = cells(report("pug", runs, "full"), method="MaPLe", dataset="pug_worlds")
    assert row["ours"] == 50 and row["published"] > 0
    assert "average" not in set(report("pug", runs, "full")["dataset"])


# ---- base to novel ----------------------------------------------------------------------------------
def halves(folder, name, base, novel, seed=1, **run):
    for half, k in (("base", base), ("novel", novel)):
        write(folder, ones(k), dataset=f"{name}_{half}", seed=seed, prompts=f"{name}{seed}", **run)


def test_base_to_novel(tmp_path):
    halves(tmp_path, "animals", 80, 60, 1)
    halves(tmp_path, "animals", 90, 50, 2)
    halves(tmp_path, "fruit", 60, 70)
    write(tmp_path, ones(1), dataset="animals_base", seed=0, prompts="other")    # its other half is to come
    table = report("base_to_novel", load_runs(tmp_path), "mini")
    row = cells(table, dataset="mini animals")
    assert row[["seeds", "base", "novel", "n_base"]].tolist() == pytest.approx([2, 85, 55, 100])
    assert row[["base_std", "novel_std"]].tolist() == pytest.approx([5, 5])
    each = 2 * 0.8 * 0.6 / 1.4, 2 * 0.9 * 0.5 / 1.4
    assert row["hm"] == pytest.approx(200 * 0.85 * 0.55 / 1.4)
    assert row["hm_std"] == pytest.approx(50 * abs(each[0] - each[1]))
    assert [row["base_low"], row["base_high"]] == pytest.approx([100 * x for x in wilson(85, 100)])
    assert row["hm_low"] < row["hm"] < row["hm_high"]
    row = cells(table, dataset="mini average of 2")
    assert row[["base", "novel", "hm", "seeds"]].tolist() == pytest.approx(
        [72.5, 62.5, 2 * 72.5 * 62.5 / 135, 1])
    assert table.attrs["left_out"].startswith("1 run(s) of maple on animals, without")
    assert table.loc[table["base_published"].notna(), "base"].isna().all()


def test_base_to_novel_of_all_eleven_stands_beside_the_paper(tmp_path):
    for name in PARTS:
        halves(tmp_path, name, 80, 60, backbone=FULL)
    runs = load_runs(tmp_path)
    assert cells(report("base_to_novel", runs, "full"), dataset="average of 10")["base"] == pytest.approx(80)
    halves(tmp_path, "imagenet", 80, 60, backbone=FULL)
    table = report("base_to_novel", load_runs(tmp_path), "full")
    row = cells(table, method="MaPLe", dataset="average")
    assert row[["base", "base_published", "novel_published", "hm_published"]].tolist() == pytest.approx(
        [80, 82.28, 75.14, 78.55])
    assert row["novel_verdict"] == row["hm_verdict"] == "lower"
    row = cells(table, method="MaPLe", dataset="imagenet")
    assert row[["novel", "novel_published", "base_verdict"]].tolist() == [60, 70.54, "not told apart"]


# ---- settings, time, pairs --------------------------------------------------------------------------
def test_ablation_steps_and_views(tmp_path):
    right = {(1, 127): ones(50), (2, 127): ones(56), (4, 127): "0" + ones(59, 99), (1, 7): ones(40)}
    for (steps, views), bits in right.items():
        write(tmp_path, bits, method="promptsync", steps=steps, n_views=views)
    write(tmp_path, ones(9), method="maple")              # in one setting: no ablation
    for loss in (True, False):
        write(tmp_path, ones(9), method="mine", dataset="r", loss=loss)
    runs = load_runs(tmp_path)
    table = report("ablation", runs, "mini")
    other = table[table["method"] == "mine"]              # of other fields, and of no known default
    assert list(other["loss"]) == [False, True] and list(other["verdict"]) == ["reference", "not told apart"]
    assert other["steps"].isna().all() and str(table["steps"].dtype) == "Int64"
    table = table[table["method"] != "mine"]
    assert list(table["steps"]) == [1, 1, 2, 4] and list(table["n_views"]) == [7, 127, 127, 127]
    assert set(table["method"]) == {"promptsync"} and set(table["dataset"]) == {"mini sketch"}
    assert cells(table, verdict="reference")[["steps", "n_views"]].tolist() == [1, 127]     # the default
    found = {(r.config["steps"], r.config["n_views"]): r.result for r in runs if r.method == "promptsync"}
    for (steps, views), result in found.items():
        row, by_hand = cells(table, steps=steps, n_views=views), compare(result, found[1, 127])
        assert row["accuracy"] == pytest.approx(100 * result.accuracy)
        if (steps, views) != (1, 127):
            assert row[["difference", "diff_low", "diff_high", "p"]].tolist() == pytest.approx(
                [100 * by_hand.difference, *(100 * x for x in by_hand.interval), by_hand.p])
    others = table[table["verdict"] != "reference"]
    adjusted = resampling.holm([*others["p"], 1.0])[:-1]  # of four comparisons: that of "mine" is the fourth
    assert others["p_holm"].tolist() == pytest.approx(adjusted)
    assert list(table["verdict"]) == ["worse", "reference", "not told apart", "better"]
    table = report("steps", runs, "mini")                 # 7 views stand alone
    assert list(table["steps"]) == [1, 2, 4] and "n_views" not in table
    assert set(table["method"]) == {"promptsync"}
    table = report("views", runs, "mini")
    assert list(table["n_views"]) == [7, 127] and list(table["difference"].dropna()) == pytest.approx([-10])


def test_latency(tmp_path):
    write(tmp_path, ones(5, 10), method="coop", seconds=0.002)
    write(tmp_path, ones(5, 10), method="coop", seconds=0.004, seed=2, prompts="p2")
    row = cells(report("latency", load_runs(tmp_path), "mini"), method="coop")
    assert row[["ms_per_image", "n", "seeds"]].tolist() == [pytest.approx(3), 10, 2]


def test_pairs_of_single_runs(tmp_path):
    bits = {("coop", "sketch"): "1100110101", ("maple", "sketch"): "1111111101",
            ("coop", "r"): "0000011111", ("maple", "r"): "0100011111", ("maple", "a"): "1"}
    for (method, dataset), right in bits.items():
        write(tmp_path, right, method=method, dataset=dataset)
    runs = load_runs(tmp_path)
    table = report("paired", runs, "mini")
    assert list(table["dataset"]) == ["mini r", "mini sketch", "mini pooled (2)"]
    found = {(r.method, r.dataset): r.records for r in runs}

    def pooled(method):
        return pd.concat([found[method, d].assign(image=d + found[method, d]["image"])
                          for d in ("r", "sketch")])
    for name, by_hand in (("mini sketch", compare(found["maple", "sketch"], found["coop", "sketch"])),
                          ("mini pooled (2)", compare(pooled("maple"), pooled("coop")))):
        row = cells(table, dataset=name)
        assert row[["a", "b", "n", "verdict"]].tolist() == ["maple", "coop", by_hand.n, by_hand.verdict]
        assert row[["difference", "low", "high", "p"]].tolist() == pytest.approx(
            [100 * by_hand.difference, *(100 * x for x in by_hand.interval), by_hand.p])
    assert cells(table, dataset="mini pooled (2)")["n"] == 20


def test_halves_are_pooled_apart(tmp_path):
    for method in ("coop", "maple"):
        for dataset in ("animals", "animals_base", "fruit_base", "animals_novel", "fruit_novel"):
            write(tmp_path, "110", method=method, dataset=dataset)
    table = report("paired", load_runs(tmp_path), "mini")
    assert [d for d in table["dataset"] if "pooled" in d] == ["mini pooled base (2)", "mini pooled novel (2)"]
    assert set(table["n"]) == {3, 6}


def test_pairs_of_averaged_seeds(tmp_path):
    write(tmp_path, "1100", method="zero_shot", prompts="none")
    write(tmp_path, "1110", method="coop", seed=1)
    write(tmp_path, "1011", method="coop", seed=2, prompts="p2")
    row = report("paired", load_runs(tmp_path), "mini").iloc[0]
    assert row[["a", "b", "n", "seeds_a", "seeds_b"]].tolist() == ["coop", "zero_shot", 4, 2, 1]
    labels = load_runs(tmp_path)[0].records["label"]
    gaps = [0, -0.5, 1, 0.5]                              # of each image: mean of two seeds minus zero-shot
    wanted = resampling.paired(gaps, labels)
    assert row[["difference", "low", "high"]].tolist() == pytest.approx(
        [25, 100 * wanted.low, 100 * wanted.high])
    assert row["p"] == row["p_holm"] == wanted.p and row["verdict"] == "not told apart"


def test_an_average_resamples_the_classes_that_data_sets_share(tmp_path):
    """Class by class the four sets are right or wrong together: the average knows no more than one set."""
    bits = "".join("1" if i % 20 < 12 else "0" for i in range(100))
    for name in ("v2", "sketch", "a", "r"):
        write(tmp_path, bits, method="zero_shot", dataset=name, prompts="none")
    table = report("domain_generalisation", load_runs(tmp_path), "mini").set_index("dataset")
    one = resampling.class_interval([int(b) for b in bits], [str(i % 20) for i in range(100)])
    assert table.loc["mini ood_average", ["ours", "low", "high"]].tolist() == pytest.approx(
        [100 * x for x in one])
    write(tmp_path, bits, method="maple", dataset="v2", classes="20, x")
    for name in ("sketch", "a", "r"):                     # one set has a class list of its own
        write(tmp_path, bits, method="maple", dataset=name)
    table = report("domain_generalisation", load_runs(tmp_path), "mini").set_index(["method", "dataset"])
    arms = table.loc[[("CLIP", "mini ood_average"), ("MaPLe", "mini ood_average")], "high"].tolist()
    assert 60 < arms[1] < arms[0]


def test_what_cannot_be_paired_is_told(tmp_path):
    write(tmp_path, "1100", method="coop")
    write(tmp_path, "1110", method="maple", classes="2, other")
    write(tmp_path, "1110", method="tpt")
    write(tmp_path, "11", method="promptalign", first=90)
    table = report("paired", load_runs(tmp_path), "mini")
    assert [set(pair) for pair in table[["a", "b"]].to_numpy()] == [{"coop", "tpt"}]
    assert table.attrs["left_out"].count("in common") == 5
    assert "maple and coop on sketch" in table.attrs["left_out"]


# ---- refusals, writers ------------------------------------------------------------------------------
def test_refusals(tmp_path):
    write(tmp_path, "10", dataset="animals")
    write(tmp_path, "10", backbone=FULL)
    runs = load_runs(tmp_path)
    with pytest.raises(ValueError, match="'tabel', expected one of: domain_generalisation, .*paired"):
        report("tabel", runs, "mini")
    with pytest.raises(ValueError, match="benchmark='medium': expected"):
        report("paired", runs, "medium")
    for name in set(TABLES) - {"latency", "cross_dataset"}:
        says = rf"'{name}'.*maple on animals; left out: 1 run\(s\) of other"
        with pytest.raises(ValueError, match=says):
            report(name, runs, "mini")
    with pytest.raises(ValueError, match="there is no run of it"):
        report("latency", [], "mini")


@pytest.fixture(scope="module")
def everything(tmp_path_factory):
    """Runs for every table, of both benchmarks."""
    folder = tmp_path_factory.mktemp("records")
    for backbone in (MINI, FULL):
        for method, steps in (("maple", 0), ("promptsync", 1), ("promptsync", 2), ("tpt", 1)):
            run = {"method": method, "backbone": backbone} | ({"steps": steps, "n_views": 8} if steps else {})
            for dataset in ("sketch", "r", "pug_worlds", "animals", "dtd", "animals_base", "animals_novel",
                            "imagenet_base", "imagenet_novel"):
                write(folder, ones(5 + steps, 12), dataset=dataset, **run)
        write(folder, ones(5, 12), method="tpt", backbone=backbone, steps=1, n_views=4)
    return load_runs(folder)


@pytest.mark.parametrize("benchmark", ["mini", "full"])
@pytest.mark.parametrize("name", TABLES)
def test_every_table_can_be_written(name, benchmark, everything):
    table = report(name, everything, benchmark)
    texts = [writer(table) for writer in (to_text, to_markdown, to_csv, to_latex)]
    assert all(len(text.splitlines()) > len(table) for text in texts)
    assert all(column in texts[0] and column in texts[2] for column in table.columns)
    assert texts[1].count("\n") == len(table) + 1 and texts[3].startswith(r"\begin{tabular}")
    back = pd.read_csv(io.StringIO(texts[2]))
    assert len(back) == len(table) and back.select_dtypes("number").abs().max().max() < 1e4
    own = table[table["dataset"].str.startswith("mini ")]
    assert len(own) == 0 if benchmark == "full" else len(own) > 0
    if benchmark == "mini" and "published" in table:
        assert own["published"].isna().all() and table["ours"].count() == len(own)
