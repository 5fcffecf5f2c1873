"""DLRM and DCNv2 with SGD in float64 numpy, written from the formulas: the independent reference of the trainer."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from support import numpy_interaction


@dataclass
class NumpyDlrm:
    """The model on one process.

    Args:
      weights: name -> float64 array, which `step` updates in place. A table has the name of its feature; the other
        weights have the names of the program's variables: bottom_mlp_0_kernel, bottom_mlp_0_bias, ..., cross_0_kernel
        (or cross_0_u and cross_0_v), cross_0_bias, top_mlp_0_kernel, ...
      features: names, in the order of their vectors.
      combiner: "sum" or "mean".
      cross: whether cross layers combine the vectors; otherwise the projection's MLPs where there are weights of
        them, else dot products.

    A batch is (label [n], numerical [n, numericals], {feature: [ids of each sample]}).
    """

    weights: dict[str, np.ndarray]
    features: Sequence[str]
    combiner: str = "sum"
    cross: bool = False

    def step(self, label, numerical, bags, learning_rate: float) -> float:
        """One step; returns the mean loss before it."""
        logits, gradients = self.logits_and_gradients(label, numerical, bags)
        for name, gradient in gradients.items():
            self.weights[name] -= learning_rate * gradient
        return float(np.mean(np.maximum(logits, 0) - logits * label + np.log1p(np.exp(-np.abs(logits)))))

    def logits_and_gradients(
        self, label, numerical, bags: Mapping[str, Sequence[Sequence[int]]]
    ) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """(logits [n], name -> gradient of the mean loss by that weight)."""
        gradients: dict[str, np.ndarray] = {}
        inputs = np.zeros((len(label), len(self.weights["bottom_mlp_0_kernel"])))
        inputs[:, : numerical.shape[1]] = numerical
        bottom = self._mlp("bottom_mlp", inputs, relu_at_end=True)
        vectors = [bottom[-1], *(self._pooled(feature, bags[feature]) for feature in self.features)]
        if self.cross:
            crossed = self._cross_layers(np.concatenate(vectors, axis=1))
            interacted = crossed[-1]
        elif self._projects:
            inputs = np.concatenate(vectors, axis=1)
            interacted, branches = self._projection(inputs)
        else:
            interacted = numpy_interaction.forward(np.stack(vectors, axis=1))
        top = self._mlp("top_mlp", interacted, relu_at_end=False)
        logits = top[-1][:, 0]

        upstream = (1 / (1 + np.exp(-logits)) - label)[:, None] / len(label)
        upstream = self._mlp_backward("top_mlp", top, upstream, False, gradients)
        if self.cross:
            upstream = self._cross_backward(crossed, upstream, gradients)
            ends = np.cumsum([vector.shape[1] for vector in vectors])[:-1]
            by_bottom, *by_vectors = np.split(upstream, ends, axis=1)
        elif self._projects:
            by_inputs = self._projection_backward(branches, upstream, gradients)
            by_bottom, *by_vectors = np.split(by_inputs, len(vectors), axis=1)
        else:
            by_bottom, *by_vectors = numpy_interaction.gradient(np.stack(vectors, axis=1), upstream).swapaxes(0, 1)
        self._mlp_backward("bottom_mlp", bottom, by_bottom, True, gradients)
        for feature, by_vector in zip(self.features, by_vectors, strict=True):
            gradients[feature] = np.zeros_like(self.weights[feature])
            for bag, by_sample in zip(bags[feature], by_vector, strict=True):
                for row in bag:
                    gradients[feature][row] += by_sample / self._divisor(bag)
        return logits, gradients

    def _pooled(self, feature, bags):
        table = self.weights[feature]
        result = np.zeros((len(bags), table.shape[1]))
        for vector, bag in zip(result, bags, strict=True):
            for row in bag:
                vector += table[row] / self._divisor(bag)
        return result

    def _divisor(self, bag):
        return len(bag) if self.combiner == "mean" else 1

    def _layers(self, prefix):
        """The numbers of the layers, from 0."""
        return itertools.takewhile(lambda layer: f"{prefix}_{layer}_bias" in self.weights, itertools.count())

    def _mlp(self, prefix, inputs, relu_at_end):
        """The inputs and the outputs of all layers."""
        outputs, last = [inputs], max(self._layers(prefix))
        for layer in self._layers(prefix):
            hidden = outputs[-1] @ self.weights[f"{prefix}_{layer}_kernel"] + self.weights[f"{prefix}_{layer}_bias"]
            outputs.append(np.maximum(hidden, 0) if relu_at_end or layer < last else hidden)
        return outputs

    def _mlp_backward(self, prefix, outputs, upstream, relu_at_end, gradients):
        """Returns the gradient by the inputs; puts the gradients by the layers into `gradients`."""
        last = max(self._layers(prefix))
        for layer in reversed(range(last + 1)):
            if relu_at_end or layer < last:
                upstream = upstream * (outputs[layer + 1] > 0)
            gradients[f"{prefix}_{layer}_kernel"] = outputs[layer].T @ upstream
            gradients[f"{prefix}_{layer}_bias"] = upstream.sum(axis=0)
            upstream = upstream @ self.weights[f"{prefix}_{layer}_kernel"].T
        return upstream

    @property
    def _projects(self):
        return "projection_branch1_0_bias" in self.weights

    @property
    def _width(self):
        return self.weights[self.features[0]].shape[1]

    def _projection(self, inputs):
        """(the first vector and all products a_r . b_c, row by row; the layers of both branches)."""
        width = self._width
        branches = [self._mlp(f"projection_branch{number}", inputs, relu_at_end=True) for number in (1, 2)]
        a = branches[0][-1].reshape(len(inputs), -1, width)  # [n, rows, width]
        b = branches[1][-1].reshape(len(inputs), width, -1)  # [n, width, columns]
        products = np.einsum("nrw,nwc->nrc", a, b).reshape(len(inputs), -1)
        return np.concatenate([inputs[:, :width], products], axis=1), branches

    def _projection_backward(self, branches, upstream, gradients):
        width, samples = self._width, len(upstream)
        a, b = branches[0][-1].reshape(samples, -1, width), branches[1][-1].reshape(samples, width, -1)
        by_products = upstream[:, width:].reshape(samples, a.shape[1], b.shape[2])
        by_a, by_b = np.einsum("nrc,nwc->nrw", by_products, b), np.einsum("nrw,nrc->nwc", a, by_products)
        by_inputs = np.zeros_like(branches[0][0])
        by_inputs[:, :width] = upstream[:, :width]
        for number, by_branch in ((1, by_a), (2, by_b)):
            flat = by_branch.reshape(samples, -1)
            by_inputs += self._mlp_backward(f"projection_branch{number}", branches[number - 1], flat, True, gradients)
        return by_inputs

    def _cross_matrix(self, layer):
        whole = self.weights.get(f"cross_{layer}_kernel")
        return self.weights[f"cross_{layer}_u"] @ self.weights[f"cross_{layer}_v"] if whole is None else whole

    def _cross_layers(self, inputs):
        """The inputs and the outputs of all layers."""
        outputs = [inputs]
        for layer in self._layers("cross"):
            mixed = outputs[-1] @ self._cross_matrix(layer) + self.weights[f"cross_{layer}_bias"]
            outputs.append(inputs * mixed + outputs[-1])
        return outputs

    def _cross_backward(self, outputs, upstream, gradients):
        by_inputs = np.zeros_like(upstream)
        for layer in reversed(list(self._layers("cross"))):
            matrix, bias = self._cross_matrix(layer), self.weights[f"cross_{layer}_bias"]
            by_inputs += upstream * (outputs[layer] @ matrix + bias)
            by_mixed = upstream * outputs[0]
            gradients[f"cross_{layer}_bias"] = by_mixed.sum(axis=0)
            by_matrix = outputs[layer].T @ by_mixed
            if f"cross_{layer}_kernel" in self.weights:
                gradients[f"cross_{layer}_kernel"] = by_matrix
            else:
                gradients[f"cross_{layer}_u"] = by_matrix @ self.weights[f"cross_{layer}_v"].T
                gradients[f"cross_{layer}_v"] = self.weights[f"cross_{layer}_u"].T @ by_matrix
            upstream = upstream + by_mixed @ matrix.T
        return upstream + by_inputs
