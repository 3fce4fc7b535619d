"""The detector: its training targets and its detections equal those of numpy."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from eval.detection.network.boxes import make_anchors
from eval.detection.network.detector import make_detector, normalize
from eval.detection.network.faster_rcnn import FasterRCNN
from eval.detection.network.roi_align import roi_align
from eval.detection.network.selection import Settings, propose
from sp_jax.models.resnet import BasicBlock, ResNet
from sp_jax.models.vit import ViT
from sp_jax.sharding import by_batch, make_mesh, replicated
from tests.eval.detection.network import plain

CLASSES = 3
IMAGES, SIDE, BOXES = 8, 64, 4
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.25, 0.3)
BACKBONE = ResNet((1, 1, 1, 1), BasicBlock, width=8)
SETTINGS = Settings(
    anchor_sizes=(16, 32, 48),
    rpn_samples=64,
    train_candidates=100,
    train_proposals=40,
    test_candidates=100,
    test_proposals=40,
    head_samples=32,
    candidates=120,
    detections=20,
)


def detector(backbone=BACKBONE, settings=SETTINGS):
    return make_detector(backbone, CLASSES, MEAN, STD, settings)


def make_batch(counts, seed=0):
    """Bright squares on noise, one colour a class, `counts` of them in each image."""
    rng = np.random.default_rng(seed)
    n = len(counts)
    image = rng.integers(0, 80, (n, SIDE, SIDE, 3)).astype(np.uint8)
    size = rng.integers(52, SIDE + 1, (n, 2)).astype(np.int32)
    boxes = np.zeros((n, BOXES, 4), np.float32)
    label = np.full((n, BOXES), -1, np.int32)
    for i, count in enumerate(counts):
        image[i, size[i, 0] :], image[i, :, size[i, 1] :] = 0, 0
        for k in range(count):
            side = rng.integers(18, 30)
            y, x = rng.integers(0, size[i] - side)
            label[i, k] = rng.integers(CLASSES)
            image[i, y : y + side, x : x + side, label[i, k]] = 255
            boxes[i, k] = x, y, x + side, y + side
    return {"image": image, "size": size, "boxes": boxes, "label": label}


@pytest.fixture(scope="module")
def variables():
    """Parameters and state of the detector, made on one image."""
    return jax.jit(detector().init)(jax.random.key(0), np.zeros((1, SIDE, SIDE, 3)))


@functools.cache
def loss_and_gradient():
    return jax.jit(jax.value_and_grad(detector().loss, has_aux=True))


def layers(variables, train):
    """The network's three parts, as jitted functions of images, map and crops."""
    network = FasterRCNN(BACKBONE, CLASSES, 9)
    mutable = ["batch_stats"] if train else False

    @functools.partial(jax.jit, static_argnums=0)
    def call(method, x):
        args = (x,) if method == "propose" else (x, train)
        outputs = network.apply(variables, *args, method=method, mutable=mutable)
        return outputs[0] if train else outputs

    return [functools.partial(call, m) for m in ("features", "propose", "classify")]


align = jax.jit(lambda features, rois: roi_align(features, rois, 1 / 16, 14))


def anchors_of(settings):
    sizes, ratios = settings.anchor_sizes, settings.anchor_ratios
    return make_anchors(4, 4, 16, sizes, ratios).astype(float)


def to_numpy(arrays):
    return [np.asarray(x, float) for x in arrays]


def lively(params, scale=20):
    """Last layers whose scores and boxes differ from each other, as after training."""
    return jax.tree.map_with_path(
        lambda path, x: (
            scale * x
            if path[-1].key == "kernel" and path[-2].key in ("objectness", "deltas")
            else x
        ),
        params,
    )


def test_padding_is_the_mean_colour():
    image = np.full((1, 4, 6, 3), 255, np.uint8)
    x = normalize(image, np.array([[3, 2]]), MEAN, STD)
    white = (1 - np.array(MEAN)) / STD
    expected = np.zeros((1, 4, 6, 3))
    expected[:, :3, :2] = white
    np.testing.assert_allclose(x, expected, rtol=1e-6)


def test_padding_gets_no_proposals():
    anchors = np.float32([[2, 2, 14, 12], [40, 0, 50, 10], [20, 10, 60, 60]])
    boxes, valid = propose(
        jnp.array([1.0, 3.0, 2.0]),
        jnp.zeros((3, 4)),
        jnp.array([20, 30]),
        jnp.asarray(anchors),
        SETTINGS,
        True,
    )
    np.testing.assert_array_equal(valid, [True, True, False])
    expected = [[20, 10, 30, 20], [2, 2, 14, 12], [0, 0, 0, 0]]
    np.testing.assert_allclose(boxes, expected, atol=1e-5)


def test_loss_is_that_of_numpy(variables):
    """All anchors and all proposals are sampled once, so nothing is random."""
    proposals = 12
    settings = dataclasses.replace(
        SETTINGS,
        rpn_samples=512,  # more than there are: the rest has no weight
        train_proposals=proposals,
        head_samples=proposals + 2,
        head_foreground=1.0,
    )
    params, state = variables
    params = lively(params)
    batch = make_batch([2, 2])
    loss = jax.jit(detector(settings=settings).loss)
    _, out = loss(params, state, batch, jax.random.key(0))

    features_of, propose, classify = layers({"params": params, **state}, True)
    features = features_of(normalize(batch["image"], batch["size"], MEAN, STD))
    logits, deltas = to_numpy(propose(features))
    anchors = anchors_of(settings)
    rpn, crops, heads = np.zeros(2), [], []
    for i in range(2):
        boxes, label = batch["boxes"][i, :2], batch["label"][i, :2]
        which, kind = plain.match(boxes, anchors, 0.3, 0.7, True)
        fg = kind == 1
        entropy = plain.binary_cross_entropy(logits[i], fg)[kind >= 0].sum()
        distance = deltas[i] - plain.encode(boxes[which], anchors)
        rpn += entropy, np.abs(distance[fg]).sum()

        best = np.argsort(-logits[i])[: settings.train_candidates]
        decoded = plain.decode_and_clip(
            deltas[i][best], anchors[best], batch["size"][i]
        )
        scores = np.where(
            np.ptp(decoded.reshape(-1, 2, 2), 1).all(1), logits[i][best], -np.inf
        )
        kept = plain.nms(decoded, scores, 0.7)[:proposals]
        assert len(kept) == proposals and np.isfinite(scores[kept]).all()
        rois = np.concatenate([decoded[kept], boxes])
        which, kind = plain.match(boxes, rois, 0.5, 0.5, False)
        classes = np.where(kind == 1, label[which], CLASSES)
        targets = plain.encode(boxes[which], rois, (10, 10, 5, 5))
        heads.append((classes, targets))
        crops.append(align(features[i], rois.astype(np.float32)))
    logits, deltas = to_numpy(classify(np.concatenate(crops)))
    classes, targets = map(np.concatenate, zip(*heads, strict=True))
    fg = np.flatnonzero(classes < CLASSES)
    assert len(fg) > 4
    chosen = plain.softmax(logits)[np.arange(len(classes)), classes]
    distance = np.abs(deltas[fg, classes[fg]] - targets[fg]).sum()
    expected = {
        "rpn_classes": rpn[0] / (2 * 512),
        "rpn_boxes": rpn[1] / (2 * 512),
        "head_classes": -np.log(chosen).mean(),
        "head_boxes": distance / len(classes),
        "foreground": len(fg) / 2,
    }
    for name, value in expected.items():
        np.testing.assert_allclose(out.metrics[name], value, rtol=1e-4, err_msg=name)


def test_detections_are_those_of_numpy(variables):
    params, state = variables
    params = lively(params)
    batch = make_batch([2, 1, 0])
    batch["size"][2] = 0  # an image that only fills up a batch
    settings = dataclasses.replace(SETTINGS, min_score=0.25, detections=8)
    found = jax.jit(detector(settings=settings).detect)(
        params, state, batch["image"], batch["size"]
    )

    features_of, propose, classify = layers({"params": params, **state}, False)
    features = features_of(normalize(batch["image"], batch["size"], MEAN, STD))
    logits, deltas = to_numpy(propose(features))
    anchors = anchors_of(settings)
    assert (found[2][2] == -1).all()
    for i, (boxes, scores, classes) in enumerate(
        zip(*(x[:2] for x in found), strict=True)
    ):
        size = batch["size"][i]
        best = np.argsort(-logits[i])[: settings.test_candidates]
        rois = plain.decode_and_clip(deltas[i][best], anchors[best], size)
        full = np.ptp(rois.reshape(-1, 2, 2), 1).all(1)
        rois, order = rois[full], logits[i][best][full]
        rois = rois[plain.nms(rois, order, 0.7)[: settings.test_proposals]]
        crops = align(features[i], rois.astype(np.float32))
        head, shifts = to_numpy(classify(crops))
        chances = plain.softmax(head)
        expected = []
        for c in range(CLASSES):
            good = chances[:, c] > settings.min_score
            place = plain.decode_and_clip(
                shifts[good, c], rois[good], size, (10, 10, 5, 5)
            )
            for k in plain.nms(place, chances[good, c], 0.5):
                expected.append((chances[good, c][k], c, place[k]))
        expected = sorted(expected, key=lambda e: -e[0])[: settings.detections]
        n = len(expected)
        assert n > 1
        np.testing.assert_allclose(scores[:n], [e[0] for e in expected], rtol=1e-4)
        np.testing.assert_array_equal(classes[:n], [e[1] for e in expected])
        np.testing.assert_allclose(boxes[:n], [e[2] for e in expected], atol=1e-2)
        assert (
            (classes[n:] == -1).all() and not scores[n:].any() and not boxes[n:].any()
        )


def test_losses_and_gradients_are_finite(variables):
    """No box at all, one in the whole batch, as many as fit; a dot and a huge box."""
    extreme = make_batch([BOXES] * IMAGES)
    extreme["boxes"][0, :2] = [[30, 30, 30.01, 30.01], [-900, -900, 2000, 2000]]
    batches = {
        "none": make_batch([0] * IMAGES),
        "one": make_batch([0, 1] + [0] * (IMAGES - 2)),
        "all": make_batch([BOXES] * IMAGES),
        "extreme": extreme,
    }
    for name, batch in batches.items():
        (loss, out), gradient = loss_and_gradient()(
            *variables, batch, jax.random.key(0)
        )
        assert np.isfinite(loss), name
        leaves = jax.tree.leaves((out, gradient))
        assert all(np.isfinite(x).all() for x in leaves), name
        assert jax.tree.structure(out.state) == jax.tree.structure(variables[1])
        boxes = int((batch["label"] >= 0).sum())
        if not boxes:
            zero = "rpn_boxes", "head_boxes", "foreground", "rpn_recall"
            assert all(out.metrics[k] == 0 for k in zero)
        else:
            assert out.metrics["foreground"] * IMAGES >= boxes  # the true ones
            assert 0 <= out.metrics["rpn_recall"] <= 1


def test_eight_devices_give_the_loss_of_one(variables):
    batch, key = make_batch([1, 0, 3, 4, 2, 1, 0, 2]), jax.random.key(3)
    (one, out_one), gradient_one = loss_and_gradient()(*variables, batch, key)
    mesh = make_mesh(jax.devices())
    assert mesh.size == 8
    whole = replicated(mesh)
    step = jax.jit(
        jax.value_and_grad(detector().loss, has_aux=True),
        in_shardings=(whole, whole, by_batch(mesh), whole),
        out_shardings=whole,
    )
    (many, out_many), gradient_many = step(
        *variables, jax.device_put(batch, by_batch(mesh)), key
    )
    assert many == pytest.approx(float(one), rel=1e-5)
    for name, value in out_one.metrics.items():
        assert out_many.metrics[name] == pytest.approx(
            float(value), rel=1e-4, abs=1e-6
        ), name
    for a, b in zip(
        jax.tree.leaves(gradient_one), jax.tree.leaves(gradient_many), strict=True
    ):
        np.testing.assert_allclose(a, b, atol=1e-4 * max(1, np.abs(a).max()))


def test_bfloat16_is_inside_only(variables):
    """Scores, losses, statistics and gradients are float32; the map is not."""
    half = BACKBONE.clone(dtype=jnp.bfloat16, remat=True)
    batch = make_batch([1, 0])
    own = detector(half)
    types = jax.eval_shape(
        jax.value_and_grad(own.loss, has_aux=True),
        *(*variables, batch, jax.random.key(0)),
    )
    assert {x.dtype for x in jax.tree.leaves(types)} == {jnp.dtype("float32")}
    boxes, scores, _ = jax.eval_shape(
        own.detect, *variables, batch["image"], batch["size"]
    )
    assert boxes.dtype == scores.dtype == jnp.float32
    features = jax.eval_shape(
        lambda x: FasterRCNN(half, CLASSES, 9).apply(
            {"params": variables[0], **variables[1]}, x, False, method="features"
        ),
        np.zeros((1, SIDE, SIDE, 3), np.float32),
    )
    assert features.dtype == jnp.bfloat16


def test_it_learns_two_images(variables):
    batch, own = make_batch([1, 2], seed=1), detector()
    params, state = variables
    tx = optax.adam(0.01)

    @jax.jit
    def step(params, state, opt, i):
        key = jax.random.fold_in(jax.random.key(1), i)
        gradient = jax.value_and_grad(own.loss, has_aux=True)
        (loss, out), grads = gradient(params, state, batch, key)
        updates, opt = tx.update(grads, opt)
        return optax.apply_updates(params, updates), out.state, opt, loss

    opt, losses = tx.init(params), []
    for i in range(60):
        params, state, opt, loss = step(params, state, opt, i)
        losses.append(float(loss))
    assert losses[0] > 2 and max(losses[-5:]) < 0.8
    found = jax.jit(own.detect)(params, state, batch["image"], batch["size"])
    for i, (boxes, scores, classes) in enumerate(
        zip(*map(np.asarray, found), strict=True)
    ):
        for box, label in zip(batch["boxes"][i], batch["label"][i], strict=True):
            if label >= 0:
                sure = (classes == label) & (scores > 0.3)
                assert plain.iou(box[None], boxes[sure]).max() > 0.5


def test_a_vision_transformer_detects():
    backbone = ViT(dim=16, depth=1, heads=2, patch_size=8, image_size=32)
    own, batch = detector(backbone), make_batch([1, 0])
    params, state = jax.jit(own.init)(jax.random.key(0), batch["image"])
    assert state == {"batch_stats": {}}
    loss = jax.jit(jax.value_and_grad(own.loss, has_aux=True))
    (_, out), gradient = loss(params, state, batch, jax.random.key(0))
    assert out.state == state
    norms = jax.tree.map(lambda x: float(np.abs(x).max()), gradient)
    unused = norms["backbone"].pop("cls_token")
    assert all(0 < norm < np.inf for norm in jax.tree.leaves(norms)), norms
    assert 0 <= unused < np.inf
    found = jax.eval_shape(own.detect, params, state, batch["image"], batch["size"])
    assert [x.shape for x in found] == [(2, 20, 4), (2, 20), (2, 20)]
    images = normalize(batch["image"], batch["size"], MEAN, STD)
    apply = jax.jit(
        lambda tokens: backbone.clone(tokens=tokens).apply(
            {"params": params["backbone"]}, images, False
        ),
        static_argnums=0,
    )
    patches = apply("map")
    assert patches.shape == (2, SIDE // 8, SIDE // 8, 16)
    np.testing.assert_allclose(
        patches.mean((1, 2)), apply("mean"), rtol=1e-4, atol=1e-5
    )
