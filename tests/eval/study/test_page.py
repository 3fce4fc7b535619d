"""The page of runs whose numbers are known."""

import csv
import json
import re

import numpy as np
import pytest
from scipy import stats

from configs.studies import common
from eval.evaluator import Number
from eval.results import write_result
from eval.study import numbers, page, plan, runner, untrained
from sp_jax.errors import UserError

SP, AP = (0.80, 0.82, 0.87), (0.78, 0.79, 0.86)


@pytest.fixture
def made(tmp_path):
    """A study of two arms and three seeds, all made but the last of "AP"; its runs."""
    study = common.get_study()
    study.title, study.about = "A study", "Is <b> escaped?"
    for pairs in common.PAIRS:
        study.arms[pairs] = common.arm("configs/quickstart.py", {"pairs": pairs})
        study.arms[pairs].changes.data = {"pairing": pairs}
    study.measures.retrieval = common.measure("retrieval/top1")
    study.measures.minutes = common.measure("run/minutes", percent=False)
    study.measures["images/s"] = common.measure("run/images_per_sec", percent=False)
    study.paper.SP = {"retrieval": 83.6}
    study.claims.better = common.claim(
        "SP is better.", "retrieval", {"SP": 1.0, "AP": -1.0}, paper=3.5
    )
    study.figure = {"kind": "bars", "x": "pairs"}
    study = plan.read_study(study)
    jobs = untrained.add_floors(study, plan.make_jobs(study), tmp_path / "runs")
    for job in jobs:
        if job.label:
            continue
        folder = tmp_path / "runs" / job.folder
        value = {"SP": SP, "AP": AP}[job.arm][job.seed]
        about = {"protocol": "nearest", "images": {}, "weights": None}
        about["headline"] = [Number("top1", percent=True, chance=0.015)]
        for number, step in ((value, 100), (0.1 + job.seed / 100, 0)):
            result = {"top1": number}
            floor = {"untrained": step == 0, "step": step}
            write_result(folder, "retrieval", result, **about, **floor)
        lines = [
            {"step": step, "time": 1.0, "epoch": step / 50, "loss": 5 - step / 50}
            | {"effective_rank": 9.0, "step_ms": 600.0, "images_per_sec": 250.0 + step}
            for step in (25, 50, 100)
        ]
        text = "".join(json.dumps(line) + "\n" for line in lines)
        (folder / "metrics.jsonl").write_text(text)
        start = {"device": "8 x cpu", "versions": {"sp_jax": "0.1.0"}}
        (folder / "starts.jsonl").write_text(json.dumps(start))
        words = {"train": {"words": list(job.commands[0].words), "seconds": 90.0}}
        if (job.arm, job.seed) == ("AP", 2):
            (folder / "train.log").write_text("step 3\nerror: the disk is full\n")
        else:
            (folder / runner.RECORD).write_text(json.dumps(words))
    return study, jobs, tmp_path / "runs"


def test_page(made, tmp_path):
    study, jobs, pool = made
    command = "python -m eval.study --study=a.py"
    out = tmp_path / "out"
    text = page.write(study, jobs, pool, out, {}, command=command).read_text()
    assert "5 of 6 runs are complete" in text and "&lt;b&gt;" in text
    spread = 100 * np.std(SP, ddof=1)
    assert f"83.00 ± {spread:.2f}" in text and "paper 83.60 (-0.60)" in text
    assert "78.50 ± 0.71" in text  # two seeds of AP
    assert "next is train: the disk is full" in text
    # Of each complete run: minutes and images/s of the steps, minutes of all commands.
    costs = ("1.0", "300.0", "1.5")
    cells = "\\s*".join(rf'<td class="number">{cost}</td>' for cost in costs)
    assert len(re.findall(cells, text)) == 5
    assert "<b>retrieval</b>: nearest" in text
    table = (tmp_path / "out/study.md").read_text().splitlines()
    assert (
        f"| SP | 3 | 83.00 ± {spread:.2f}, paper 83.60 (-0.60) | 1.0 ± 0.0 | "
        "300.0 ± 0.0 |"
    ) in table
    # The network of the first arm stands for both.
    assert "| untrained | 3 | 11.00 ± 1.00 |  |  |" in table
    assert "| chance |  | 1.50 |  |  |" in table
    assert "n = 2 to 3 seeds of each arm" in text and "± the sample" in text
    assert text.count("data:image/png;base64,") == 3 and "http" not in text
    # The differences of seeds 0 and 1 are 2 and 3 points.
    low, high = stats.t.interval(0.95, 1, 2.5, stats.sem([2, 3]))
    assert f"+2.50 [{low:+.2f}, {high:+.2f}], 2 of 2 seeds" in text
    with open(tmp_path / "out/study.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    top = {(r["arm"], r["seed"]): r for r in rows if r["measure"] == "retrieval"}
    floors = [float(top.pop(("untrained", str(seed)))["value"]) for seed in range(3)]
    assert floors == [10.0, 11.0, 12.0]
    assert len(top) == 5 and float(top["SP", "2"]["value"]) == 87.0
    assert top["SP", "0"]["paper"] == "83.6" and top["AP", "0"]["paper"] == ""
    assert {row["command"] for row in rows} == {command}
    assert {(row["commit"], row["device"]) for row in rows} == {("0.1.0", "8 x cpu")}
    minutes = [float(r["value"]) for r in rows if r["measure"] == "minutes"]
    assert minutes == [1.0] * 5  # 100 steps of 600 ms
    assert {r["value"] for r in rows if r["measure"] == "images/s"} == {"300.0"}


@pytest.mark.parametrize(
    ("of", "chance"),
    [
        ("x/top1", 0.1),
        ("x/accuracy", 0.2),
        ("x/texture/accuracy", 0.3),
        ("x/cosine", None),
    ],
)
def test_chance_is_what_the_evaluator_says(of, chance):
    headline = (Number("top1", chance=0.1), Number("cosine"))
    if of == "x/accuracy":
        headline += (Number("accuracy_k10", chance=0.2),)
    result = {"headline": headline, "result": {"chance": 0.3}}
    for percent in (False, True):
        found = numbers.chance_of({"of": of, "percent": percent}, result)
        assert found == (chance and pytest.approx((100 if percent else 1) * chance))


def test_a_number_that_no_result_has_is_said(made):
    study, jobs, pool = made
    study["measures"]["retrieval"]["of"] = "retrieval/topp1"
    with pytest.raises(UserError, match="retrieval has no 'topp1', but top1"):
        numbers.collect(study, jobs, pool)


def test_a_floor_that_an_older_version_did_not_measure(made):
    study, jobs, pool = made
    runs = [job for job in jobs if not job.label]
    (pool / runs[0].folder / "eval/untrained/retrieval.json").unlink()
    floors = untrained.add_floors(study, runs, pool)[len(runs) :]
    (command,) = floors[0].commands
    assert command.words[:2] == ("eval.retrieval", "--checkpoint={after}")
    given = {"--untrained", "--name=retrieval", "--splits=probe_train,probe_test"}
    assert given < set(command.words)
    assert not any(floor.commands for floor in floors[1:])


def test_a_page_is_never_replaced_by_one_of_fewer_runs(made, tmp_path, monkeypatch):
    study, jobs, pool = made
    monkeypatch.setattr(page.measure_plots, "draw", lambda *args: [])
    out = tmp_path / "out"

    def write():
        return page.write(study, jobs, pool, out, {}, {"study.seeds": (0,)}, "Beware.")

    first = write()
    text = first.read_text()
    assert "<b>Beware.</b>" in text and "<code>--study.seeds=(0,)</code>." in text
    assert "**Beware.**" in (out / "study.md").read_text()
    records = [pool / job.folder / runner.RECORD for job in jobs if not job.label]
    kept = {path: path.read_text() for path in records[:3]}
    for path in kept:
        path.unlink()
    second = write()  # of two runs
    assert second == tmp_path / "out.2/study.html"
    assert first.read_text() == text and "2 of 6 runs" in second.read_text()
    # It grows, and takes the place of the first one as soon as it has as many.
    for count, (path, content) in enumerate(kept.items(), start=3):
        path.write_text(content)
        assert write() == (first if count == 5 else second)


@pytest.mark.parametrize(
    ("sums", "bounds", "word"),
    [
        ((2.0, 2.2, 1.9), (0.0, None), "holds"),
        ((-2.0, -2.2, -1.9), (0.0, None), "does not hold"),
        ((2.0, -1.0, 3.0), (0.0, None), "undecided"),
        ((2.0, 2.2, 1.9), (2.0, None), "undecided"),
        ((0.3, 0.2, 0.1), (None, 1.0), "holds"),
        ((2.0, 2.2, 1.9), (None, 1.0), "does not hold"),
        ((0.1, -0.1, 0.2), (-1.0, 1.0), "holds"),
        ((2.0,), (0.0, None), "one seed"),
        ((), (0.0, None), "no runs"),
    ],
)
def test_verdicts(sums, bounds, word):
    claim = {"measure": "m", "terms": {"a": 1.0, "b": -2.0}}
    claim |= dict(zip(("above", "below"), bounds, strict=True))
    seeds = range(1, 1 + len(sums))
    values = {"m": {"a": {}, "b": {9: 1.0}}}  # a seed that only one arm has
    for seed, value in zip(seeds, sums, strict=True):
        values["m"]["a"][seed], values["m"]["b"][seed] = value + 4 * seed, 2.0 * seed
    verdict = numbers.judge(claim, values)
    assert (verdict.word, verdict.sum.seeds) == (word, len(sums))
    low = -np.inf if bounds[0] is None else bounds[0]
    high = np.inf if bounds[1] is None else bounds[1]
    assert verdict.agree == sum(low < value < high for value in sums)
    if len(sums) > 1:
        want = stats.ttest_1samp(sums, 0).confidence_interval(0.95)
        np.testing.assert_allclose(verdict.sum[1:3], want, rtol=1e-9)


def test_a_page_is_not_replaced_by_that_of_another_file(tmp_path):
    out = tmp_path / "transfer"
    out.mkdir()
    lines = (
        "arm,seed,measure,value,command",
        "SP,0,x,1.0,python -m eval.study --study={}",
    )
    (out / "study.csv").write_text("\n".join(lines).format("mine/transfer.py") + "\n")
    command = "python -m eval.study --study={} --arms=SP"
    own, other = command.format("mine/transfer.py"), command.format("transfer.py")
    assert page.choose_folder(out, 1, own) == out
    assert page.choose_folder(out, 1, other) == tmp_path / "transfer.2"
