"""How the authors of a method train their linear probe."""

from typing import NamedTuple

from sp_jax import optim


class ProbeRecipe(NamedTuple):
    """How a linear layer is trained.

    Attributes:
        learning_rate: peak; for a batch of 256 if it is scaled.
        batch_size: images per step.
        epochs: passes over the training images.
        scaled: the learning rate is in proportion to the batch.
        weight_decay: times weights and biases, added to the gradient.
        nesterov: Nesterov's momentum.
        larc: LARC's learning rate for each parameter (https://github.com/NVIDIA/apex).
        every_step: a cosine falls every step, not every epoch.
        drops: epochs at which the learning rate falls to a tenth, in place of the cosine.
    """

    learning_rate: float
    batch_size: int
    epochs: int
    scaled: bool = False
    weight_decay: float = 0.0
    nesterov: bool = False
    larc: bool = False
    every_step: bool = False
    drops: tuple[int, ...] = ()

    def resized(self, epochs: int = 0, batch_size: int = 0) -> "ProbeRecipe":
        """The same recipe with other epochs and another batch; 0 keeps a value.

        The learning rate follows a batch as in the source, the drops the epochs.
        """
        epochs, batch_size = epochs or self.epochs, batch_size or self.batch_size
        drops = tuple(round(drop * epochs / self.epochs) for drop in self.drops)
        return self._replace(epochs=epochs, batch_size=batch_size, drops=drops)

    @property
    def peak(self) -> float:
        """The highest learning rate."""
        if not self.scaled:
            return self.learning_rate
        return optim.linear_scaling(self.learning_rate, self.batch_size)
