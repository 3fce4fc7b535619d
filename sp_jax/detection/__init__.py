"""Detection: the parts of Faster R-CNN as pure functions, with static shapes."""

from sp_jax.detection.detector import Detector as Detector
from sp_jax.detection.detector import load_backbone as load_backbone
from sp_jax.detection.detector import make_detector as make_detector
from sp_jax.detection.selection import Settings as Settings
