"""An elastic training in processes of its own: it is started, faults strike its ranks, and its log is read."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

FLAGS = """--embedding_dim 8 --bottom_mlp_dims 12,8 --top_mlp_dims 10,1 --batch_size 100 --learning_rate 0.1
    --warmup_steps 0 --print_freq 1 --seed 7 --evals_per_epoch 0 --cpu --keep_checkpoints 1000""".split()
SUPERVISOR = [sys.executable, "-m", "dlrm_tf2.elastic"]
TRAINER = [sys.executable, "-m", "dlrm_tf2.dlrm"]


class ElasticJob:
    """A training whose log and checkpoints are in a folder.

    Args:
      folder: where `log` and the checkpoints `c`, `c.step-N` go; its file `data` or the folder `data` is the dataset.
      steps: steps of the training, of 100 samples.
      every: steps between two checkpoints.
    """

    def __init__(self, folder: Path, *, steps: int, every: int):
        self.output = folder / "output"
        self.folder, self.log, self.steps, self.every = folder, folder / "log", steps, every
        self.trainer = [
            *TRAINER, "--dataset_path", folder / "data", *FLAGS, "--max_steps", steps, "--epochs", "1000",
            "--checkpoint_every", every, "--save_checkpoint_path", folder / "c", "--log_path", self.log,
        ]  # fmt: skip

    def command(self, *flags) -> list[str]:
        """The command that runs the job and writes all output to a file; `flags` are the supervisor's."""
        words = (*SUPERVISOR, *flags, *self.trainer)
        return [*map(str, ("bash", "-c", f'exec "$@" > {self.output} 2>&1', "job", *words))]

    def records(self) -> list[dict]:
        """The whole lines of the log."""
        text = self.log.read_text() if self.log.exists() else ""
        return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]

    def losses(self) -> list[tuple[int, float]]:
        """(step, loss) of every line of the log that has a loss."""
        return [(record["step"], record["loss"]) for record in self.records() if "loss" in record]

    def restarts(self) -> list[dict]:
        """The lines of the log at the restarts."""
        return [record for record in self.records() if "reason" in record]

    def reach(self, process: subprocess.Popen, step: int, restarts: int = 0, patience_s: float = 240) -> None:
        """Waits until a step is logged, after so many restarts."""
        deadline = time.monotonic() + patience_s
        while True:
            done = self.records()
            starts = [number for number, record in enumerate(done) if "reason" in record]
            if len(starts) >= restarts:
                since = done[starts[restarts - 1] :] if restarts else done
                if any(record.get("step", 0) >= step for record in since):
                    return
            assert process.poll() is None and time.monotonic() < deadline, self.output.read_text()
            time.sleep(0.02)

    def pids(self) -> dict[int, int]:
        """Rank -> its process, on this machine."""
        found = {}
        for process in Path("/proc").iterdir():
            try:
                arguments = (process / "cmdline").read_bytes().split(b"\0")
                variables = dict(
                    word.split(b"=", 1) for word in (process / "environ").read_bytes().split(b"\0") if b"=" in word
                )
            except OSError:
                continue
            if arguments[1:3] == [b"-m", b"dlrm_tf2.dlrm"] and str(self.log).encode() in arguments:
                found[int(variables.get(b"HOROVOD_RANK", b"-1"))] = int(process.name)
        return found

    def strike(self, rank: int, number: signal.Signals = signal.SIGKILL) -> None:
        """Sends a signal to a rank."""
        os.kill(self.pids()[rank], number)

    def data_position(self) -> list[int]:
        """The position in the data of the newest checkpoint: pass and sample."""
        document = json.loads((self.folder / "c" / "manifest.json").read_text())["document"]
        return [document["data"]["epoch"], document["data"]["sample"]]
