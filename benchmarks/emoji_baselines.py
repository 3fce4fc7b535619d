"""Results of simple image features on the embedded drawings: numbers to beat.

    python -m benchmarks.emoji_baselines

Nothing is learnt but the classifiers: they are fitted on `probe_train` and tested on
`probe_test`, as the evaluators do with a network's features. Prints a Markdown table.
Deterministic; a minute of one core. Needs scikit-image and scikit-learn.

Features:
* 16x16 pixels: the RGB image, averaged over 4x4 pixels, less its mean colour.
* HOG: histograms of oriented gradients, 9 orientations, cells of 8x8 pixels, blocks of
  2x2 cells (Dalal and Triggs, 2005, https://doi.org/10.1109/CVPR.2005.177).
* HOG + colour: with a histogram of 4x4x4 RGB bins in each quarter of the image, at
  half the length of the HOG part.
The mean over `probe_train` is taken off each.

Columns:
* kNN: cosine, k = 20, votes exp(similarity / 0.07), as in `eval.knn`.
* probe: multinomial logistic regression on standardised features. Its L2 penalty is
  chosen on a fifth of the groups of `probe_train`.
* retrieval: top-1 by cosine among the held-out concepts that all five artists drew;
  one artist's drawings against another's, mean over the 20 ordered pairs.

The drawings lie on random plain colours, as a network sees them. For reference also on
white, without the probes: easier, as the background is then no distraction.
"""

import argparse
import itertools
from collections.abc import Callable

import numpy as np

from input_pipeline.stores import emoji, open_store

TARGETS = ("category", "subcategory")
PENALTIES = (0.03, 0.1, 0.3, 1.0)  # L2 on the mean loss: sklearn's 1 / (n C).


def pixels(images: np.ndarray) -> np.ndarray:
    """uint8 [N, 64, 64, 3] -> float [N, 768]."""
    small = images.reshape(-1, 16, 4, 16, 4, 3).mean((2, 4))
    return (small - small.mean((1, 2), keepdims=True)).reshape(len(images), -1)


def hog(images: np.ndarray) -> np.ndarray:
    """uint8 [N, 64, 64, 3] -> float [N, 1764]."""
    from skimage import feature

    return np.stack(
        [
            feature.hog(image, cells_per_block=(2, 2), channel_axis=-1)
            for image in images
        ]
    )


def hog_and_colour(images: np.ndarray) -> np.ndarray:
    """uint8 [N, 64, 64, 3] -> float [N, 2020]."""
    bins = (images >> 6).astype(np.int64) @ np.asarray([16, 4, 1])
    quarters = bins.reshape(-1, 2, 32, 2, 32).swapaxes(2, 3).reshape(len(images), 4, -1)
    shares = np.stack([(quarters == i).mean(-1) for i in range(64)], axis=-1)
    # Square roots: the cosine is then the histograms' Bhattacharyya coefficient.
    colour = np.sqrt(shares).reshape(len(images), -1)
    return np.concatenate([unit(hog(images)), 0.5 * unit(colour)], axis=1)


def unit(features: np.ndarray) -> np.ndarray:
    """Rows at length 1."""
    length = np.linalg.norm(features, axis=1, keepdims=True)
    return features / np.maximum(length, 1e-12)


def knn(
    train: np.ndarray,
    train_labels: np.ndarray,
    test: np.ndarray,
    test_labels: np.ndarray,
    k: int = 20,
    temperature: float = 0.07,
) -> float:
    """Accuracy of the weighted vote of the k nearest neighbours by cosine."""
    similarity = unit(test) @ unit(train).T
    nearest = np.argsort(-similarity, axis=1, kind="stable")[:, :k]
    weight = np.exp(np.take_along_axis(similarity, nearest, axis=1) / temperature)
    votes = np.zeros((len(test), train_labels.max() + 1))
    np.add.at(votes, (np.arange(len(test))[:, None], train_labels[nearest]), weight)
    return float(np.mean(votes.argmax(1) == test_labels))


def probe(
    train: np.ndarray,
    train_labels: np.ndarray,
    groups: np.ndarray,
    test: np.ndarray,
    test_labels: np.ndarray,
) -> float:
    """Test accuracy of logistic regression with the penalty of the best validation accuracy."""
    from sklearn import linear_model, preprocessing

    def accuracy(fit: np.ndarray, x: np.ndarray, y: np.ndarray, penalty: float):
        model = linear_model.LogisticRegression(
            C=1 / (penalty * fit.sum()), max_iter=500
        )
        scale = preprocessing.StandardScaler().fit(train[fit])
        model.fit(scale.transform(train[fit]), train_labels[fit])
        return model.score(scale.transform(x), y)

    order = np.random.PCG64(0).random_raw(groups.max() + 1)
    held = (order % 5 == 0)[groups]
    scores = [accuracy(~held, train[held], train_labels[held], p) for p in PENALTIES]
    best = PENALTIES[int(np.argmax(scores))]
    return accuracy(np.ones(len(train), bool), test, test_labels, best)


def retrieval(
    features: np.ndarray, concept: np.ndarray, artist: np.ndarray
) -> tuple[float, int]:
    """Top-1 over ordered pairs of artists, and the number of concepts."""
    artists = np.unique(artist)
    shared = [c for c in np.unique(concept) if np.sum(concept == c) == len(artists)]
    rows = {
        a: [int(np.flatnonzero((concept == c) & (artist == a))[0]) for c in shared]
        for a in artists
    }
    vectors = unit(features)
    hits = [
        np.argmax(vectors[rows[a]] @ vectors[rows[b]].T, axis=1)
        == np.arange(len(shared))
        for a, b in itertools.permutations(artists, 2)
    ]
    return float(np.mean(hits)), len(shared)


FEATURES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "16x16 pixels": pixels,
    "HOG": hog,
    "HOG + colour": hog_and_colour,
}


def main() -> None:
    """Compute every number and print the table."""
    import threadpoolctl

    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data_dir", help="folder of prepared images")
    options = parser.parse_args()
    whole = open_store("emoji", data_dir=options.data_dir)
    train = open_store("emoji", "probe_train", data_dir=options.data_dir)
    test = open_store("emoji", "probe_test", data_dir=options.data_dir)
    row = {name: i for i, name in enumerate(whole.ids)}
    rows = [row[name] for name in (*train.ids, *test.ids)]
    tiles = emoji.read_tiles(emoji.ARCHIVE.read_bytes())[rows]
    backgrounds = {
        "coloured": whole.read(rows),
        "white": emoji.composite(tiles, np.full(3, 255, np.uint8)),
    }
    concept, artist = whole.labels[rows], whole.target("artist")[0][rows]
    targets = [(train.target(t)[0], test.target(t)[0]) for t in TARGETS]

    print(
        "| background | features | category kNN | category probe | subcategory kNN "
        "| subcategory probe | retrieval |\n" + "|---" * 7 + "|"
    )
    count = len(train)
    for background, images in backgrounds.items():
        for name, extract in FEATURES.items():
            features = extract(images).astype(np.float32)
            features -= features[:count].mean(0)
            cells = []
            for train_labels, test_labels in targets:
                pair = (features[:count], train_labels)
                cells.append(knn(*pair, features[count:], test_labels))
                accuracy = np.nan
                if background == "coloured":
                    groups = train.target("group")[0]
                    # One thread: more only wait for each other at this size.
                    with threadpoolctl.threadpool_limits(1):
                        accuracy = probe(*pair, groups, features[count:], test_labels)
                cells.append(accuracy)
            top1, gallery = retrieval(features, concept, artist)
            numbers = " | ".join(
                "" if np.isnan(cell) else f"{cell:.3f}" for cell in (*cells, top1)
            )
            print(f"| {background} | {name} | {numbers} |", flush=True)
    majority = [np.mean(b == np.bincount(a).argmax()) for a, b in targets]
    guess = (
        f"{majority[0]:.3f} | {majority[0]:.3f} | {majority[1]:.3f} | {majority[1]:.3f}"
    )
    print(f"| | majority class; chance | {guess} | {1 / gallery:.3f} |")
    print(
        f"\nFit on {count:,} drawings, tested on {len(test):,}; retrieval among "
        f"{gallery} concepts."
    )


if __name__ == "__main__":
    main()
