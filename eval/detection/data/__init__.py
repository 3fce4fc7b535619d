"""Images with boxes: stores of them, and the batches that a detector is trained on."""

from eval.detection.data.batches import Batches as Batches
from eval.detection.data.batches import make_dataset as make_dataset
from eval.detection.data.batches import test_batches as test_batches
from eval.detection.data.box_store import BoxStore as BoxStore
from eval.detection.data.sets import open_boxes as open_boxes
