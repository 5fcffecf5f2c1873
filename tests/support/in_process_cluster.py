"""A cluster in this process that is as unkind as a real one may be: every task runs twice, in any order; everything
that crosses a machine is pickled; records arrive in any order."""

import contextlib
import pickle
import random


class UnkindCluster:
    parallelism = 2

    def __init__(self, seed=0):
        self._random = random.Random(seed)
        self.tasks = []  # (name of the function, task) of every task that was asked for

    def run(self, function, tasks):
        self.tasks += [(_name(function), task) for task in tasks]
        results = {}
        for number in self._twice(len(tasks)):
            results[number] = _sent(_sent(function)(_sent(tasks[number])))
        return [results[number] for number in range(len(tasks))]

    def exchange(self, deal, tasks, *, collect, num_partitions):
        self.tasks += [(_name(deal), task) for task in tasks]
        records = {}
        for number in self._twice(len(tasks)):
            records[number] = _sent(list(_sent(deal)(_sent(tasks[number]))))
        partitions = [[] for _ in range(num_partitions)]
        for partition, content in (record for each in records.values() for record in each):
            partitions[partition].append(content)
        results = {}
        for number in self._twice(num_partitions):
            self._random.shuffle(partitions[number])
            results[number] = _sent(_sent(collect)(number, iter(partitions[number])))
        return [results[number] for number in range(num_partitions)]

    def _twice(self, number):
        order = [*range(number)] * 2
        self._random.shuffle(order)
        return order


def start_here(cluster=None):
    """What `preprocess` takes as start_cluster."""
    return lambda: contextlib.nullcontext(cluster or UnkindCluster())


def _name(function):
    while hasattr(function, "func"):
        function = function.args[0] if function.args and callable(function.args[0]) else function.func
    return function.__name__


def _sent(thing):
    return pickle.loads(pickle.dumps(thing))
