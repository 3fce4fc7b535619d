"""Every key of a study, and the parts that the studies share.

A study is a table of arms (what is trained) and measures (what is read off), with what the
paper says of them: arXiv 2510.08722, https://arxiv.org/abs/2510.08722.
"""

from ml_collections import ConfigDict

from sp_jax.errors import UserError

VARIANTS = ("", "small", "quick")
PAIRS = {"SP": "semantic", "AP": "augmented"}
# The archives of the datasets that features transfer to.
ARCHIVES = {
    "cifar10": "cifar10:data/cifar-10-python.tar.gz",
    "cifar100": "cifar100:data/cifar-100-python.tar.gz",
    "stl10": "stl10:data/stl10_binary.tar.gz",
}
# The measure that most claims are about, of each variant.
HEADLINES = {"": "STL-10", "small": "CIFAR-10", "quick": "retrieval"}


def ordered(**values) -> ConfigDict:
    """A ConfigDict that keeps the order of keys, as do dicts in it; by default it sorts."""
    config = ConfigDict(sort_keys=False)
    for name, value in values.items():
        config[name] = ordered(**value) if isinstance(value, dict) else value
    return config


def get_study() -> ConfigDict:
    """Every key of a study, with its meaning.

    In all strings of arms, changes and evaluations, `{NAME}` stands for a store of that
    name; in those of arms and changes also `{seed}` for the run's seed, `{folder}` for its
    folder and `{after}` for that of the arm `after`.
    """
    study = ordered()
    study.title = ""
    study.about = ""  # the question of the study, in a few sentences
    study.seeds = (0, 1, 2)  # config.seed of each arm's runs
    study.stores = ordered()  # name -> image store, the place of your data
    # Changes to the config of every pre-training; the command line can add to these sections.
    sections = ("data", "augment", "model", "method_options", "optimizer", "checkpoint")
    study.changes = ordered(**{name: {} for name in sections})
    # name -> config, changes, factors, prepare, after, checkpoint; see `arm`.
    study.arms = ordered()
    # name -> type of `eval/` or an import path, and its options; besides what a run measures
    # by itself.
    study.evaluations = ordered()
    study.measures = ordered()  # title -> of, percent; see `measure`
    study.paper = ordered()  # arm -> title of a measure -> the paper's number
    # name -> text, measure, terms, paper, above, below; see `claim`.
    study.claims = ordered()
    # kind: bars (the default) | lines | invariance | detection; x, series: factors.
    study.figure = ordered()
    return study


def check_variant(variant: str) -> None:
    """Refuse an unknown variant.

    Raises:
        UserError: it is not one of `VARIANTS`.
    """
    if variant not in VARIANTS:
        raise UserError(
            f"There is no variant {variant!r}: use :quick (the drawings that ship with "
            "the project, a CPU), :small (Tiny-ImageNet, CIFAR-10, one GPU), or none."
        )


def arm(
    config: str,
    factors: dict[str, str],
    changes: dict | None = None,
    prepare: tuple[tuple[str, ...], ...] = (),
    after: str = "",
    checkpoint: str = "",
) -> ConfigDict:
    """An arm: what is trained.

    Args:
        config: a file and its variant, "configs/simclr_resnet50.py:quick"; "" for a random
            network, which only a detection can start from.
        factors: what tells it from the other arms, such as {"method": "SimCLR",
            "pairs": "SP"}. All arms of a study have the same ones.
        changes: of its config, as nested dicts.
        prepare: programs that run before it, each a module and its flags.
        after: an arm whose run of the same seed has to be there before.
        checkpoint: a file of weights that is evaluated as it is, once for all seeds; `config`
            is "" then.
    """
    return ordered(
        config=config,
        factors=factors,
        changes=changes or {},
        prepare=prepare,
        after=after,
        checkpoint=checkpoint,
    )


def pairing(pairs: str) -> dict:
    """The change that makes the pairs SP or AP."""
    return {"data": {"pairing": PAIRS[pairs]}}


def measure(of: str, percent: bool = True) -> ConfigDict:
    """A measure: a number to read from each run.

    Args:
        of: "RESULT/KEY": a key of the run's eval/RESULT.json, or of the detection RESULT;
            or "run/minutes" (of the steps alone), "run/images_per_sec", or
            "run/precision" of the pairs that were mined for it (`{folder}/table.json`).
        percent: show it times 100.
    """
    return ordered(of=of, percent=percent)


def claim(
    text: str,
    measure: str,
    terms: dict[str, float],
    paper: float | None = None,
    above: float | None = None,
    below: float | None = None,
) -> ConfigDict:
    """A claim: a sentence that the numbers may support.

    Args:
        text: the sentence.
        measure: title of the measure.
        terms: arm -> factor; the sum over the arms, seed by seed, is what is judged:
            {"sp": 1, "ap": -1} is the difference of two arms.
        paper: the paper's value of the sum.
        above: the sentence says that the sum is larger.
        below: or that it is smaller. Without both: larger than 0.
    """
    if above is None and below is None:
        above = 0.0
    return ordered(
        text=text, measure=measure, terms=terms, paper=paper, above=above, below=below
    )


def add_data(study: ConfigDict, variant: str, transfer: bool = True) -> None:
    """Add the data of a study: stores, changes, evaluations, measures.

    Titles of the measures: CIFAR-10, CIFAR-100 and STL-10, as in the paper; CIFAR-10 in
    `:small`; in `:quick` kNN and probe by category and by subcategory, and retrieval. Without
    `transfer` there are none.
    """
    check_variant(variant)
    if variant == "quick":
        study.seeds = (1, 2, 3)  # The quick recipes were chosen with seed 0.
    if variant == "quick" and transfer:  # The quick recipes measure on the drawings.
        for target in ("category", "subcategory"):
            study.measures[f"kNN {target}"] = measure(f"knn_{target}/accuracy")
            study.measures[f"probe {target}"] = measure(f"probe_{target}/accuracy")
        study.measures["retrieval"] = measure("retrieval/top1")
    if variant != "quick":
        study.changes.data = {"store": "{pretrain}", "split": "{split}"}
        study.changes.data.pairs = "{pairs}"
        study.stores.pretrain = "folder:data/imagenet187"
        study.stores.split = "all"
        study.stores.pairs = ""  # a curated table; "" draws the pairs by the labels
        titles = ["CIFAR-10", "CIFAR-100", "STL-10"]
        if variant == "small":
            study.stores.pretrain = "folder:data/tiny_imagenet_sp"
            study.stores.split = "train"
            study.changes.epochs = 50.0
            titles = ["CIFAR-10"]
        for title in titles if transfer else ():
            name = title.lower().replace("-", "")
            study.stores[name] = ARCHIVES[name]
            add_probe(study, name, title)
    length = "minutes" if variant else "hours"
    study.measures[length] = measure(f"run/{length}", percent=False)
    study.measures["images/s"] = measure("run/images_per_sec", percent=False)


def pairs_of_class(variant: str, count: int) -> tuple[str, ...]:
    """A command for `arm` that writes `{folder}/table.csv` with some pairs per class."""
    store, split, pairs = ("{pretrain}", "{split}", "{pairs}")
    if variant == "quick":
        store, split, pairs = ("emoji", "pretrain", "")
    words = ("input_pipeline.build_pairs", f"--store={store}", f"--split={split}")
    words += (f"--pairs={pairs}", f"--pairs_per_class={count}", "--allow_small")
    return (*words, "--seed={seed}", "--out={folder}/table.csv")


def mined_pairs(variant: str, *options: str) -> tuple[str, ...]:
    """Words that write `{folder}/table.csv`, found by the run of the arm `after`."""
    store, split = (
        ("emoji", "pretrain") if variant == "quick" else ("{pretrain}", "{split}")
    )
    words = ("input_pipeline.mine_pairs", f"--store={store}", f"--split={split}")
    return (*words, "--checkpoint={after}", "--out={folder}/table.csv", *options)


TABLE = {"data": {"pairs": "{folder}/table.csv"}}  # the change that trains on it
BY_FEATURES = ("--levels=False", "--neighbours=5", "--max_uses=2")
# The best pairs of drawings without labels: docs/results.md. And about the steps of other arms.
BY_LEVELS = ("--levels", "--neighbours=3", "--max_uses=3")
LEVELS_EPOCHS = {"": 118.0, "small": 30.0, "quick": 12.5}


def add_probe(study: ConfigDict, store: str, title: str) -> None:
    """A linear probe on a store of the study, fitted on train and scored on test."""
    study.evaluations[f"probe_{store}"] = {
        "type": "linear_probe",
        "dataset": f"{{{store}}}",
        "train_split": "train",
        "test_split": "test",
    }
    study.measures[title] = measure(f"probe_{store}/accuracy")


def suffix(variant: str) -> str:
    """The suffix of a variant's recipes: `:small` trains them at full size."""
    return ":quick" if variant == "quick" else ""
