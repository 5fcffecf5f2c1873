"""A synthetic model with its optimizers in float64 numpy, written from the formulas: the independent reference."""

from dataclasses import dataclass, field

import numpy as np

LEARNING_RATE = {"sgd": 0.03, "adagrad": 1e-3, "adam": 1e-3}  # as published


@dataclass
class NumpyZoo:
    """Args:
    model: a ZooModel; optimizer: a name; weights: name -> float64 array, updated in place: the tables, and the MLP's
    mlp_0_kernel, mlp_0_bias, mlp_1_kernel, ...
    """

    model: object
    optimizer: str
    weights: dict
    state: dict = field(default_factory=dict)

    def step(self, number, label, numerical, ids):
        """Step 1, 2, ... on a batch, ids by feature [samples, hotness]. Returns the mean loss before it."""
        tables = {feature: table.name for table in self.model.tables for feature in table.features}
        vectors = [self.weights[tables[feature]][ids[feature]].sum(axis=1) for feature in tables]
        pooling = self.pooling_matrix(sum(vector.shape[1] for vector in vectors))
        layers = [np.concatenate([np.concatenate(vectors, axis=1) @ pooling, numerical], axis=1)]
        last = len(self.model.mlp_dims) - 1
        for layer in range(last + 1):
            out = layers[-1] @ self.weights[f"mlp_{layer}_kernel"] + self.weights[f"mlp_{layer}_bias"]
            layers.append(out if layer == last else np.maximum(out, 0))
        logits = layers[-1][:, 0]
        upstream = ((1 / (1 + np.exp(-logits)) - label) / len(label))[:, None]
        gradients = {name: np.zeros_like(weights) for name, weights in self.weights.items()}
        for layer in reversed(range(last + 1)):
            gradients[f"mlp_{layer}_kernel"] = layers[layer].T @ upstream
            gradients[f"mlp_{layer}_bias"] = upstream.sum(axis=0)
            upstream = upstream @ self.weights[f"mlp_{layer}_kernel"].T
            upstream = upstream * (layers[layer] > 0) if layer else upstream
        by_vectors, start = upstream[:, : pooling.shape[1]] @ pooling.T, 0
        touched = {name: np.ones(len(weights), bool) for name, weights in self.weights.items()}
        touched |= {table.name: np.zeros(table.num_rows, bool) for table in self.model.tables}
        for feature, vector in zip(tables, vectors, strict=True):
            of_feature = by_vectors[:, start : start + vector.shape[1]]
            for position in range(ids[feature].shape[1]):
                np.add.at(gradients[tables[feature]], ids[feature][:, position], of_feature)
            touched[tables[feature]][ids[feature]] = True
            start += vector.shape[1]
        for name, gradient in gradients.items():
            self._update(name, gradient, touched[name], number)
        return np.mean(np.maximum(logits, 0) - logits * label + np.log1p(np.exp(-np.abs(logits))))

    def pooling_matrix(self, width):
        """[width, windows]: column j of the product is the mean of the columns of window j."""
        window = self.model.pooling or 1
        windows = -(-width // window)
        left = (windows * window - width) // 2
        member = np.zeros((width, windows))
        member[np.arange(width), (np.arange(width) + left) // window] = 1
        return member / member.sum(axis=0)

    def _update(self, name, gradient, touched, number):
        """A step on the rows that a batch names; on all of a weight of the MLP."""
        weights, rate = self.weights[name], LEARNING_RATE[self.optimizer]
        if self.optimizer == "sgd":
            direction = gradient
        elif self.optimizer == "adagrad":
            total = self.state.setdefault(name, np.full_like(weights, 0.1))
            total[touched] += gradient[touched] ** 2
            direction = gradient / (np.sqrt(total) + 1e-7)
        else:
            first, second = self.state.setdefault(name, (np.zeros_like(weights), np.zeros_like(weights)))
            first[touched] = 0.9 * first[touched] + 0.1 * gradient[touched]
            second[touched] = 0.999 * second[touched] + 0.001 * gradient[touched] ** 2
            direction = first / (1 - 0.9**number) / (np.sqrt(second / (1 - 0.999**number)) + 1e-7)
        weights[touched] -= rate * direction[touched]
