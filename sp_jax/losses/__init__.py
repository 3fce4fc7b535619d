"""Losses of self-supervised learning as pure functions of arrays.

They need jax and nothing else, compute in float32, and are written over the global batch:
under `jax.jit` with sharded arguments they are right on any number of devices.
"""

from sp_jax.losses.barlow_twins import barlow_twins as barlow_twins
from sp_jax.losses.byol import byol as byol
from sp_jax.losses.deepcluster import deepcluster as deepcluster
from sp_jax.losses.deepcluster import spherical_kmeans as spherical_kmeans
from sp_jax.losses.dino import dino as dino
from sp_jax.losses.dino import dino_center as dino_center
from sp_jax.losses.moco import moco_v2 as moco_v2
from sp_jax.losses.moco import moco_v3 as moco_v3
from sp_jax.losses.nnclr import nearest_neighbours as nearest_neighbours
from sp_jax.losses.nnclr import nnclr as nnclr
from sp_jax.losses.nt_xent import l2_normalize as l2_normalize
from sp_jax.losses.nt_xent import nt_xent as nt_xent
from sp_jax.losses.pirl import memory_info_nce as memory_info_nce
from sp_jax.losses.pirl import nce as nce
from sp_jax.losses.pirl import nce_normalizer as nce_normalizer
from sp_jax.losses.representation import alignment as alignment
from sp_jax.losses.representation import effective_rank as effective_rank
from sp_jax.losses.representation import feature_std as feature_std
from sp_jax.losses.representation import uniformity as uniformity
from sp_jax.losses.simsiam import simsiam as simsiam
from sp_jax.losses.supcon import supcon as supcon
from sp_jax.losses.swav import sinkhorn as sinkhorn
from sp_jax.losses.swav import swav as swav
from sp_jax.losses.vicreg import vicreg as vicreg
