"""Images with boxes: stores of them, and the batches that a detector is trained on."""

from input_pipeline.detection.batches import Batches as Batches
from input_pipeline.detection.batches import make_dataset as make_dataset
from input_pipeline.detection.batches import test_batches as test_batches
from input_pipeline.detection.boxes import BoxStore as BoxStore
from input_pipeline.detection.boxes import open_boxes as open_boxes
