"""Image stores: a file for each kind of source, and the two forms of prepared images."""

from input_pipeline.stores.image_store import ImageStore as ImageStore
from input_pipeline.stores.image_store import find_splits as find_splits
from input_pipeline.stores.image_store import images_as as images_as
from input_pipeline.stores.image_store import open_data as open_data
from input_pipeline.stores.image_store import open_source as open_source
from input_pipeline.stores.image_store import open_store as open_store
