"""Data augmentation on the accelerator: whole batches, one key, inside `jax.jit`.

Example:
    >>> import jax, jax.numpy as jnp
    >>> from sp_jax.augment import Augment, make_views
    >>> pairs = jnp.zeros((4, 2, 64, 64, 3), jnp.uint8)
    >>> (one, two), source = make_views(jax.random.key(0), pairs, [Augment(size=64)] * 2)
    >>> one.shape
    (4, 64, 64, 3)
"""

from sp_jax.augment.blur import gaussian_blur as gaussian_blur
from sp_jax.augment.color import adjust_brightness as adjust_brightness
from sp_jax.augment.color import adjust_contrast as adjust_contrast
from sp_jax.augment.color import adjust_hue as adjust_hue
from sp_jax.augment.color import adjust_saturation as adjust_saturation
from sp_jax.augment.color import color_jitter as color_jitter
from sp_jax.augment.color import normalize as normalize
from sp_jax.augment.color import solarize as solarize
from sp_jax.augment.color import to_grayscale as to_grayscale
from sp_jax.augment.config import IMAGENET_MEAN as IMAGENET_MEAN
from sp_jax.augment.config import IMAGENET_STD as IMAGENET_STD
from sp_jax.augment.config import Augment as Augment
from sp_jax.augment.config import Jigsaw as Jigsaw
from sp_jax.augment.geometry import crop_resize as crop_resize
from sp_jax.augment.geometry import resize as resize
from sp_jax.augment.params import Params as Params
from sp_jax.augment.params import sample_params as sample_params
from sp_jax.augment.views import apply_params as apply_params
from sp_jax.augment.views import augment as augment
from sp_jax.augment.views import finish_views as finish_views
from sp_jax.augment.views import jigsaw as jigsaw
from sp_jax.augment.views import make_views as make_views
from sp_jax.augment.views import preprocess as preprocess
