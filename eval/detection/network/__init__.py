"""Detection: the parts of Faster R-CNN as pure functions, with static shapes."""

from eval.detection.network.detector import Detector as Detector
from eval.detection.network.detector import make_detector as make_detector
from eval.detection.network.selection import Settings as Settings
