"""Imports torchvision as the reference of the parity tests, also beside a CPU torch.

A torchvision that was built for CUDA cannot load its compiled operators beside a CPU
build of torch, and then stops in its import, since it wants to describe operators that do
not exist; requirements-test.txt says what to install. Only there, as a last resort, their
signatures are declared: its transforms and models need no more. A test module that imports
this one is skipped where one of the two is not installed:
`from tests.torchvision_ref import torch, torchvision`.
"""

import importlib
import sys
import warnings

import pytest

torch = pytest.importorskip("torch")

_NMS = "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor"


def load():
    """torchvision, as it is if it can be imported."""
    try:
        return pytest.importorskip("torchvision")
    except RuntimeError as error:
        if "torchvision::nms" not in str(error):
            raise
    warnings.warn(
        "torch and torchvision are of different builds: see requirements-test.txt.",
        stacklevel=2,
    )
    for name in [n for n in sys.modules if n.partition(".")[0] == "torchvision"]:
        del sys.modules[name]
    for operator in ("nms", "qnms"):
        torch.library.define(f"torchvision::{operator}", _NMS)
    return importlib.import_module("torchvision")


torchvision = load()
torch.set_num_threads(1)  # its threads would fight with jax's for a test's cores
importlib.import_module("torchvision.transforms.v2")  # not imported by torchvision
