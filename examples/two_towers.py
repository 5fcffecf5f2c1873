"""A model that is not DLRM, with its embedding tables on all ranks: two towers whose dot product says who reads what.

    python examples/two_towers.py
    horovodrun -np 2 python examples/two_towers.py --save_path towers

The losses are the same with any number of ranks. --restore_path continues from what --save_path wrote, also on another
number of ranks.
"""

import argparse

import numpy as np
import tensorflow as tf

from dlrm_tf2.checkpoint import load_checkpoint, save_checkpoint
from dlrm_tf2.embedding import DistributedEmbedding, TableConfig, make_plan
from dlrm_tf2.optim import Optimizer
from dlrm_tf2.runtime.comm import connect
from dlrm_tf2.runtime.process import Launch, set_up_process
from dlrm_tf2.sharding.plan import samples_of_rank

USERS, ARTICLES, WIDTH, BATCH = 500, 300, 16, 64
HISTORY = 5  # articles that a user has read


class TwoTowers:
    """A tower for the user, a tower for the article; the dot product of their outputs is the logit of a click."""

    def __init__(self, comm):
        tables = [
            TableConfig("user", USERS, WIDTH),
            TableConfig("article", ARTICLES, WIDTH, "mean", ("article", "history")),  # one table, two features
        ]
        hotness = {"history": HISTORY}
        self.layer = DistributedEmbedding(
            tables,
            make_plan(tables, comm.size, hotness=hotness, optimizer="adagrad", batch_size=BATCH),
            comm=comm,
            seed=1,
            optimizer=Optimizer("adagrad"),
            hotness=hotness,
        )
        # Every rank has these, made from one seed, and gets the same gradients for them.
        rng = np.random.default_rng(1)
        self.user_tower = tf.Variable(rng.normal(0, 0.2, [2 * WIDTH, WIDTH]), dtype=tf.float32, name="user_tower")
        self.article_tower = tf.Variable(rng.normal(0, 0.2, [WIDTH, WIDTH]), dtype=tf.float32, name="article_tower")
        self.variables = [self.user_tower, self.article_tower]

    def losses(self, vectors, clicked):
        """The loss of each sample, [local batch]."""
        user = tf.nn.tanh(tf.concat([vectors["user"], vectors["history"]], axis=1) @ self.user_tower)
        article = tf.nn.tanh(vectors["article"] @ self.article_tower)
        logits = tf.reduce_sum(user * article, axis=1)
        return tf.nn.sigmoid_cross_entropy_with_logits(clicked, logits)

    @tf.function
    def step(self, ids, clicked):
        """One step on a global batch; returns the mean loss, the same on all ranks."""
        loss, gradients = self.layer.train_step(
            ids, lambda vectors: self.losses(vectors, clicked), learning_rate=0.1, variables=self.variables
        )
        for variable, gradient in zip(self.variables, gradients, strict=True):
            variable.assign_sub(0.5 * gradient)
        return loss


def global_batch(step):
    """Random readers; a user clicks on articles whose number has the same parity."""
    rng = np.random.default_rng(step)
    user, article = rng.integers(0, USERS, BATCH), rng.integers(0, ARTICLES, BATCH)
    history = 2 * rng.integers(0, ARTICLES // 2, [BATCH, HISTORY]) + (user % 2)[:, np.newaxis]
    return {"user": user, "article": article, "history": history}, (user % 2 == article % 2).astype(np.float32)


def main():
    parser = argparse.ArgumentParser(description="Trains two towers on random readers.")
    parser.add_argument("--steps", type=int, default=20, help="steps to train")
    parser.add_argument("--save_path", help="folder to save the trained model in")
    parser.add_argument("--restore_path", help="folder of a saved model to continue from")
    arguments = parser.parse_args()
    launch = Launch.detect()
    set_up_process(launch, cpu=True, amp=False)
    comm = connect(launch.world_size)
    model, first = TwoTowers(comm), 0
    everything = {"dense": {v.name.removesuffix(":0"): v for v in model.variables}, "embedding": model.layer}
    if arguments.restore_path:
        first = load_checkpoint(arguments.restore_path, comm, **everything)["step"]
    start, stop = samples_of_rank(BATCH, comm.size, comm.rank)
    for step in range(first, first + arguments.steps):
        features, clicked = global_batch(step)
        ids = model.layer.ids(
            {name: features[name] for name in model.layer.global_features},
            {name: features[name][start:stop] for name in model.layer.sample_features},
            global_batch=BATCH,
        )
        loss = model.step(ids, clicked[start:stop])
        if comm.rank == 0:
            print(f"step {step + 1}: loss {float(loss):.5f}", flush=True)
    if arguments.save_path:
        save_checkpoint(arguments.save_path, comm, **everything, document={"step": first + arguments.steps})


if __name__ == "__main__":
    main()
