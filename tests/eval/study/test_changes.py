"""Changes by the command line are named on a page, and in its folder's name."""

import pytest

from eval.study import changes, plan
from sp_jax.config import load_config
from sp_jax.errors import UserError

FILE = "configs/studies/samples.py"


def changed(file=FILE, flags=None, arms=()):
    """The changes of a study, and the study after them."""
    config = load_config(file)
    with config.unlocked():
        config.update_from_flattened_dict(flags or {})
    return changes.find_changes(config, file, arms), plan.read_study(config)


def test_each_change_is_found_and_gives_a_name():
    flags = {"seeds": (0,), "changes.epochs": 2.0, "stores.cifar10": "emoji"}
    found, _ = changed(flags=flags)
    assert found == {
        "study.seeds": (0,),
        "study.changes.epochs": 2.0,
        "study.stores.cifar10": "emoji",
    }
    some = [{}, found, found | {"study.seeds": (1,)}, {"arms": "SP_50"}]
    names = [changes.name_page(FILE, one) for one in some]
    assert names[0] == "samples" and len(set(names)) == len(names)
    assert changes.name_page(f"{FILE}:quick", {}) == "samples_quick"
    assert changed()[0] == changed(f"{FILE}:quick")[0] == {}
    assert changed(flags={"seeds": (0, 1, 2)})[0] == {}  # as it was
    assert changed(arms=["SP_50", "AP_50"])[0] == {"arms": "AP_50,SP_50"}


def test_a_deleted_key_is_a_change():
    config = load_config(FILE)
    del config.claims.fewer.paper
    assert changes.find_changes(config, FILE) == {"study.claims.fewer.paper": None}


@pytest.mark.parametrize(
    ("variant", "flags", "numbers", "words"),
    [
        ("", {}, True, ""),
        ("", {"seeds": (0,)}, True, ""),
        ("", {"stores.pretrain": "emoji"}, True, "stores.pretrain must name them"),
        ("", {"changes.epochs": 3.0}, False, "by the command line. So the paper's"),
        ("", {"evaluations.probe_stl10.epochs": 3}, False, "by the command line. So"),
        (":quick", {}, False, "differ from it: the variant :quick."),
        (
            ":small",
            {"changes.epochs": 3.0},
            False,
            ":small and the changes by the command line.",
        ),
    ],
)
def test_the_papers_numbers_belong_to_its_frame(variant, flags, numbers, words):
    file = f"configs/studies/augmentation.py{variant}"
    found, study = changed(file, flags)
    shown, said = changes.place_in_frame(study, file, found)
    assert words in said and bool(said) == bool(words)
    assert bool(shown["paper"]) == numbers
    assert any(x["paper"] is not None for x in shown["claims"].values()) == numbers


def test_a_study_that_is_not_about_the_paper_needs_no_warning():
    found, study = changed("configs/studies/vit.py:quick", {"changes.epochs": 3.0})
    assert found and changes.place_in_frame(study, "vit.py:quick", found)[1] == ""


def test_arms_that_were_not_asked_for_are_left_out():
    _, study = changed("configs/studies/pair_sources.py:quick")
    some = plan.choose_arms(study, ["mined", "supcon"])
    assert list(some["arms"]) == ["AP", "mined", "supcon"]  # mined waits for AP
    assert list(some["claims"]) == ["mined", "supcon"]
    assert {job.arm for job in plan.make_jobs(some)} == set(some["arms"])
    with pytest.raises(UserError, match="no arm 'SP'"):
        plan.choose_arms(study, ["SP"])


def test_a_change_that_does_not_reach_an_arm_is_refused():
    found, study = changed(flags={"changes.epochs": 2.0})
    with pytest.raises(
        UserError, match="does not change .*AP_both.*study.arms.NAME.ch"
    ):
        changes.check_reach(study, found)
    both = [f"{name}.changes.epochs" for name in study["arms"] if "both" in name]
    flags = {f"arms.{name}": 2.0 for name in both} | {"changes.epochs": 2.0}
    for given in (flags, {"changes.batch_size": 64, "seeds": (0,)}):
        found, study = changed(flags=given)
        changes.check_reach(study, found)
