"""DLRM with SGD in float64 numpy, written from the formulas: the independent reference of the trainer."""

import numpy as np


class NumpyDlrm:
    """bottom, top: lists of (kernel, bias); tables: one array a feature. All are updated in place by `step`."""

    def __init__(self, bottom, top, tables):
        self.bottom = [(kernel.astype(np.float64), bias.astype(np.float64)) for kernel, bias in bottom]
        self.top = [(kernel.astype(np.float64), bias.astype(np.float64)) for kernel, bias in top]
        self.tables = [table.astype(np.float64) for table in tables]

    def step(self, label, numerical, ids, learning_rate):
        """One step on a batch; returns the mean loss before the update."""
        inputs = np.zeros((len(label), self.bottom[0][0].shape[0]))
        inputs[:, : numerical.shape[1]] = numerical
        bottom = self._forward(self.bottom, inputs, relu_at_end=True)
        vectors = np.stack([bottom[-1], *(table[ids[:, i]] for i, table in enumerate(self.tables))], axis=1)
        count, width = vectors.shape[1:]
        products = np.einsum("bid,bjd->bij", vectors, vectors)
        rows, columns = np.tril_indices(count, -1)
        interacted = np.zeros((len(label), self.top[0][0].shape[0]))
        interacted[:, :width] = vectors[:, 0]
        interacted[:, width : width + len(rows)] = products[:, rows, columns]
        top = self._forward(self.top, interacted, relu_at_end=False)
        logits = top[-1][:, 0]
        loss = np.mean(np.maximum(logits, 0) - logits * label + np.log1p(np.exp(-np.abs(logits))))

        upstream = (1 / (1 + np.exp(-logits)) - label)[:, None] / len(label)
        upstream, top_gradients = self._backward(self.top, top, upstream, relu_at_end=False)
        by_products = np.zeros_like(products)
        by_products[:, rows, columns] = upstream[:, width : width + len(rows)]
        by_vectors = np.einsum("bij,bjd->bid", by_products + by_products.transpose(0, 2, 1), vectors)
        by_vectors[:, 0] += upstream[:, :width]
        _, bottom_gradients = self._backward(self.bottom, bottom, by_vectors[:, 0], relu_at_end=True)

        for layers, gradients in ((self.top, top_gradients), (self.bottom, bottom_gradients)):
            for (kernel, bias), (by_kernel, by_bias) in zip(layers, gradients, strict=True):
                kernel -= learning_rate * by_kernel
                bias -= learning_rate * by_bias
        for i, table in enumerate(self.tables):
            np.subtract.at(table, ids[:, i], learning_rate * by_vectors[:, i + 1])
        return loss

    @staticmethod
    def _forward(layers, inputs, relu_at_end):
        outputs = [inputs]
        for number, (kernel, bias) in enumerate(layers):
            hidden = outputs[-1] @ kernel + bias
            if relu_at_end or number < len(layers) - 1:
                hidden = np.maximum(hidden, 0)
            outputs.append(hidden)
        return outputs

    @staticmethod
    def _backward(layers, outputs, upstream, relu_at_end):
        gradients = []
        for number in reversed(range(len(layers))):
            if relu_at_end or number < len(layers) - 1:
                upstream = upstream * (outputs[number + 1] > 0)
            gradients.append((outputs[number].T @ upstream, upstream.sum(axis=0)))
            upstream = upstream @ layers[number][0].T
        return upstream, gradients[::-1]
