"""Embedding tables, pooling and optimizers in float64 numpy, written from the formulas: the layer's reference.

The model around the tables is logit = sum over the result's columns of a * x + b * x**2, with a and b fixed.
"""

from dataclasses import dataclass, field

import numpy as np


@dataclass
class Sample:
    """One feature in a batch: ids of all samples one after the other, how many each sample has, and their weights."""

    ids: np.ndarray
    lengths: np.ndarray
    weights: np.ndarray | None = None

    def of(self, start, stop):
        """The samples [start, stop)."""
        bounds = np.cumsum([0, *self.lengths])
        part = slice(bounds[start], bounds[stop])
        return Sample(self.ids[part], self.lengths[start:stop], None if self.weights is None else self.weights[part])


@dataclass
class NumpyEmbedding:
    """Args:
    tables: TableConfigs; weights: name -> float64 table; optimizer: an Optimizer.
    """

    tables: tuple
    weights: dict
    optimizer: object
    slots: dict = field(default_factory=dict)

    def __post_init__(self):
        for name in self.weights:
            for slot in self.optimizer.row_slots:
                self.slots[name, slot] = np.full_like(self.weights[name], self.optimizer.initial_value(slot))

    def result(self, batch):
        """[samples, columns]: feature after feature, in the tables' order."""
        columns = []
        for table in self.tables:
            for feature in table.features:
                columns.append(np.stack([self._pooled(table, *bag) for bag in self._bags(table, batch[feature])]))
        return np.concatenate(columns, axis=1)

    def step(self, batch, label, a, b, learning_rate, number):
        """One training step; returns the mean loss before it."""
        result = self.result(batch)
        logits = result @ a + result**2 @ b
        loss = np.mean(np.maximum(logits, 0) - logits * label + np.log1p(np.exp(-np.abs(logits))))
        by_result = ((1 / (1 + np.exp(-logits)) - label) / len(label))[:, None] * (a + 2 * result * b)
        start = 0
        for table in self.tables:
            gradient, touched = np.zeros_like(self.weights[table.name]), np.zeros(table.num_rows, bool)
            for feature in table.features:
                for sample, (ids, weights) in enumerate(self._bags(table, batch[feature])):
                    touched[ids] = True
                    upstream = by_result[sample, start:]
                    if table.combiner is None:
                        for place, one in enumerate(ids):
                            first = place * table.embedding_dim
                            gradient[one] += weights[place] * upstream[first : first + table.embedding_dim]
                        continue
                    total = weights.sum() if table.combiner == "mean" else 1.0
                    for one, weight in zip(ids, weights, strict=True):
                        gradient[one] += weight / total * upstream[: table.embedding_dim]
                start += self._width(table, batch[feature])
            self._update(table.name, gradient, touched, learning_rate, number)
        return loss

    def _update(self, name, gradient, touched, learning_rate, number):
        o, w, g = self.optimizer, self.weights[name], gradient
        slots = {slot: self.slots[name, slot] for slot in o.row_slots}
        if o.name == "sgd":
            direction = g
        elif o.name == "adam":
            m = o.beta1 * slots["first_moment"] + (1 - o.beta1) * g
            v = o.beta2 * slots["second_moment"] + (1 - o.beta2) * g * g
            slots["first_moment"][touched], slots["second_moment"][touched] = m[touched], v[touched]
            direction = m / (1 - o.beta1**number) / (np.sqrt(v / (1 - o.beta2**number)) + o.epsilon)
        else:
            square, (slot,) = g * g, o.row_slots
            if o.name == "rowwise_adagrad":
                square = np.repeat(square.mean(axis=1, keepdims=True), g.shape[1], axis=1)
            slots[slot][touched] += square[touched]
            direction = g / (np.sqrt(slots[slot]) + o.epsilon)
        w[touched] -= learning_rate * direction[touched]

    def _pooled(self, table, ids, weights):
        rows = self.weights[table.name][ids]
        if table.combiner is None:
            return rows.reshape(-1)
        total = (rows * weights[:, None]).sum(axis=0)
        if table.combiner == "mean" and len(ids):
            total = total / weights.sum()
        return total

    @staticmethod
    def _bags(table, sample):
        bounds = np.cumsum([0, *sample.lengths])
        weights = np.ones(len(sample.ids)) if sample.weights is None else sample.weights
        return [(sample.ids[i:j], weights[i:j]) for i, j in zip(bounds, bounds[1:], strict=False)]

    @staticmethod
    def _width(table, sample):
        return table.embedding_dim * (int(sample.lengths[0]) if table.combiner is None else 1)
