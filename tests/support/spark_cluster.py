"""A standalone Spark cluster on this machine: a master and workers, each a process; and its end, whatever happens."""

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pyspark

ROOT = Path(__file__).resolve().parent.parent.parent
HOME = Path(pyspark.__file__).parent
_START_S = 60


class SparkProcesses:
    """One master and some workers with one core each; a context manager.

    Attributes:
      url: the URL of the master.

    Args:
      folder: takes logs and the scratch folders of the workers.
      num_workers: number of workers.
      seconds_to_live: the cluster ends by itself after this time, even if this process was killed.
    """

    def __init__(self, folder, num_workers=2, seconds_to_live=600):
        self._folder, self._num_workers, self._alive_s = Path(folder), num_workers, seconds_to_live
        self._processes = []
        self.workers = []

    def __enter__(self):
        try:
            (self._folder / "scratch").mkdir(parents=True, exist_ok=True)
            self._start("master", ["master.Master", "--host", "127.0.0.1", "--port", "0", "--webui-port", "0"])
            self.url = self._wait_for("master", r"Starting Spark master at (spark://\S+)")
            for number in range(self._num_workers):
                self.add_worker(number)
        except BaseException:
            self.__exit__(None, None, None)
            raise
        return self

    def add_worker(self, number):
        """Starts a worker, and waits until the master knows the worker."""
        arguments = ["--host", "127.0.0.1", "--port", "0", "--webui-port", "0", "--cores", "1", "--memory", "1g"]
        arguments += ["--work-dir", str(self._folder / f"work-{number}"), self.url]
        self.workers.append(self._start(f"worker-{number}", ["worker.Worker", *arguments]))
        self._wait_for(f"worker-{number}", r"Successfully registered with master (\S+)")

    def flags(self):
        """Flags of `criteo-prep preprocess` for this cluster."""
        settings = {
            "spark.driver.host": "127.0.0.1", "spark.driver.bindAddress": "127.0.0.1",
            "spark.executor.memory": "512m", "spark.executor.cores": "1",
            "spark.local.dir": str(self._folder / "scratch"), "spark.executorEnv.PYTHONPATH": str(ROOT),
            "spark.pyspark.python": sys.executable,
        }  # fmt: skip
        return ["--engine", "spark", "--master", self.url, *settings_as_flags(settings)]

    def executors(self):
        """Process ids of the executors: children of the workers."""
        return [pid for worker in self.workers for pid in _descendants(worker.pid)
                if "CoarseGrainedExecutorBackend" in _command(pid)]  # fmt: skip

    def __exit__(self, *_):
        doomed = [pid for process in self._processes for pid in (process.pid, *_descendants(process.pid))]
        for pid in doomed:
            kill(pid)
        for process in self._processes:
            process.wait()

    def _start(self, name, arguments):
        environment = {**os.environ, "SPARK_LOCAL_IP": "127.0.0.1", "PYTHONPATH": str(ROOT),
                       "SPARK_LOCAL_DIRS": str(self._folder / "scratch")}  # fmt: skip
        command = ["timeout", "-s", "KILL", str(self._alive_s), HOME / "bin/spark-class"]
        command += [f"org.apache.spark.deploy.{arguments[0]}", *arguments[1:]]
        with open(self._folder / f"{name}.log", "wb") as log:
            process = subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, stdout=log,
                                       stderr=subprocess.STDOUT, start_new_session=True)  # fmt: skip
        self._processes.append(process)
        return process

    def _wait_for(self, name, pattern):
        deadline = time.monotonic() + _START_S
        while time.monotonic() < deadline:
            text = (self._folder / f"{name}.log").read_text(errors="replace")
            if match := re.search(pattern, text):
                return match[1]
            time.sleep(0.1)
        raise TimeoutError(f"{name} did not start: {text[-2000:]}")


def start_preprocess(paths, output, *flags):
    """A process of `criteo-prep preprocess`, in a group of its own."""
    command = [sys.executable, "-m", "criteo_prep", "preprocess", "--input", *map(str, paths), "--output", str(output)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.Popen([*command, "--quiet", *flags], cwd=ROOT, env=environment, stdout=subprocess.PIPE,
                            stderr=subprocess.PIPE, text=True, start_new_session=True)  # fmt: skip


def wait_for_files(process, folder, pattern, *, number=1):
    """Waits until files exist in a folder while a process runs. Returns whether they existed before it ended."""
    while process.poll() is None:
        if len([*Path(folder).glob(pattern)]) >= number:
            return True
        time.sleep(0.02)
    return False


def settings_as_flags(settings):
    return [word for name, value in settings.items() for word in ("--conf", f"{name}={value}")]


def kill(pid):
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        pass


def kill_tree(pid):
    """Kills a process and its descendants, at once."""
    for each in (pid, *_descendants(pid)):
        kill(each)


def _descendants(pid):
    found = []
    for thread in Path(f"/proc/{pid}/task").glob("*/children"):  # a child belongs to the thread that made it
        try:
            children = thread.read_text().split()
        except (FileNotFoundError, ProcessLookupError):
            continue
        found += [each for child in map(int, children) for each in (child, *_descendants(child))]
    return found


def _command(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""
