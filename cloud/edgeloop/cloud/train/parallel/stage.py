"""One stage of a pipeline on one device: forward, backward, and the update of its own weights."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from edgeloop.cloud.train.parallel.partition import Part, copy_part
from edgeloop.errors import OptionsError
from edgeloop.extras import need

SEEDS_APART = 1024  # random numbers that one stage may draw in one micro-batch


class Stage:
    """The layers of one part of a model, copied to a device.

    A stage keeps only the inputs of each micro-batch and computes its activations again going backward, as GPipe does
    (https://arxiv.org/abs/1811.06965, section 2.3). So that both passes agree, each draws the random numbers of its own
    micro-batch, and batch normalization changes its moving statistics once a step: to the mean over the micro-batches.
    """

    def __init__(self, part: Part, device: str, optimizer: Any, loss: Callable[[Any, Any], Any] | None) -> None:
        """`optimizer` is this stage's alone; `loss`(labels, outputs) [n] is given to the last stage."""
        tf = need("tensorflow", extra="cloud")
        self.device = device
        self.loss = loss
        self.model, self._copies = copy_part(part, device)
        self.optimizer = optimizer
        with tf.device(device):
            optimizer.build(self.model.trainable_variables)
        weights = {id(v) for v in self.model.weights}
        self._statistics = list(self.model.non_trainable_weights)
        self._seeds = [v for v in self.model.variables if id(v) not in weights]
        self.forward = tf.function(self._forward, autograph=False)
        self.backward = tf.function(self._backward, autograph=False)
        self.update = tf.function(self._update, autograph=False)

    @property
    def pairs(self) -> list[tuple[Any, Any]]:
        """Each variable of the layers of the model that was divided, states of random layers too, and its copy here."""
        return [pair for layer, copy in self._copies for pair in zip(layer.variables, copy.variables, strict=True)]

    def _forward(self, inputs: Sequence[Any], micro: Any) -> list[Any]:
        tf = need("tensorflow", extra="cloud")
        with tf.device(self.device), self._scope(micro):
            return self._outputs(inputs)

    def _backward(
        self, inputs: Sequence[Any], outgoing: Any, micro: Any
    ) -> tuple[list[Any], list[Any], list[Any], Any]:
        """Gradients of the floating inputs and of the weights, the new statistics, and the summed loss.

        Args:
            inputs: Of the stage, one micro-batch.
            outgoing: Gradients of the floating outputs; for the last stage (labels, examples of the whole batch).
            micro: Which micro-batch it is, an integer tensor.
        """
        tf = need("tensorflow", extra="cloud")
        floats = [tensor for tensor in inputs if tensor.dtype.is_floating]
        weights = [v.value for v in self.model.trainable_variables]
        with tf.device(self.device):
            with self._scope(micro) as scope, tf.GradientTape() as tape:
                tape.watch(floats)
                outputs = self._outputs(inputs)
                if self.loss is None:
                    target, weigh, total = [t for t in outputs if t.dtype.is_floating], outgoing, tf.zeros(())
                else:
                    labels, examples = outgoing
                    losses = self.loss(labels, outputs[0] if len(outputs) == 1 else outputs)
                    target, weigh = tf.reduce_sum(losses) / tf.cast(examples, losses.dtype), None
                    total = target
                self._refuse_activity_losses(scope)
            gradients = tape.gradient(
                target, floats + weights, output_gradients=weigh, unconnected_gradients=tf.UnconnectedGradients.ZERO
            )
            dense = [tf.convert_to_tensor(gradient) for gradient in gradients]  # of an embedding come IndexedSlices
            statistics = [tf.convert_to_tensor(_value(scope, v)) for v in self._statistics]
            return dense[: len(floats)], dense[len(floats) :], statistics, total

    def _update(self, gradients: Sequence[Any], statistics: Sequence[Any], micro_batches: Any) -> Any:
        """Apply the sum of gradients, penalties of weights included, and take over the statistics' mean. Returns the
        penalties of before."""
        tf = need("tensorflow", extra="cloud")
        variables = self.model.trainable_variables
        with tf.device(self.device):
            with tf.GradientTape() as tape:
                penalty = sum((v.regularizer(v.value) for v in variables if v.regularizer), tf.zeros(()))
            penalties = tape.gradient(
                penalty, [v.value for v in variables], unconnected_gradients=tf.UnconnectedGradients.ZERO
            )
            sums = [g + tf.convert_to_tensor(p) for g, p in zip(gradients, penalties, strict=True)]
            self.optimizer.apply(sums, variables)
            for variable, value in zip(self._statistics, statistics, strict=True):
                variable.assign(tf.cast(value, variable.dtype))
            for seed in self._seeds:
                seed.assign(_moved(seed, micro_batches))
        return penalty

    def predict(self, inputs: Sequence[Any]) -> list[Any]:
        """The outputs of the stage for some inputs, as after training."""
        with need("tensorflow", extra="cloud").device(self.device):
            return self._outputs(inputs, training=False)

    def _outputs(self, inputs: Sequence[Any], training: bool = True) -> list[Any]:
        tf = need("tensorflow", extra="cloud")
        return tf.nest.flatten(self.model(list(inputs) if len(inputs) > 1 else inputs[0], training=training))

    def _scope(self, micro: Any) -> Any:
        """Nothing that a layer assigns takes effect within; random numbers are those of the micro-batch."""
        keras = need("keras", extra="cloud")
        return keras.StatelessScope([(seed, _moved(seed, micro)) for seed in self._seeds], collect_losses=True)

    def _refuse_activity_losses(self, scope: Any) -> None:
        if scope.losses:
            raise OptionsError(
                f"a layer among {', '.join(layer.name for layer, _ in self._copies)} adds a loss of its activations, "
                "which pipeline stages do not hand on",
                advice="Remove activity_regularizer and add_loss, or choose another strategy.",
            )


def _value(scope: Any, variable: Any) -> Any:
    value = scope.get_current_value(variable)
    return variable.value if value is None else value


def _moved(seed: Any, micro: Any) -> Any:
    """The state of a seed generator [2], as far on as the random numbers of `micro` micro-batches."""
    tf = need("tensorflow", extra="cloud")
    steps = tf.stack([tf.zeros_like(micro), micro * SEEDS_APART])
    return tf.convert_to_tensor(seed.value) + tf.cast(steps, seed.dtype)
