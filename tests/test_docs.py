"""What docs/*.md shows can be run: flags exist, scripts parse, YAML loads."""

import re
import subprocess
from pathlib import Path

import pytest
import yaml

from dlrm_tf2 import flags
from dlrm_tf2.config import TrainConfig

DOCS = sorted((Path(__file__).resolve().parent.parent / "docs").glob("*.md"))


def blocks(path, language):
    return re.findall(rf"^```{language}\n(.*?)^```", path.read_text(), re.M | re.S)


def commands_of_dlrm(path):
    """The arguments of every command of the trainer in the code blocks, fenced or indented."""
    code = re.findall(r"^```\w*\n.*?^```|(?:^ {4}.*\n)+", path.read_text(), re.M | re.S)
    for line in "\n".join(code).replace("\\\n", " ").splitlines():
        line = line.split("#")[0]
        if match := re.search(r"(?:^|\s)(?:dlrm|-m dlrm_tf2\.dlrm|dlrm_tf2/dlrm\.py)\s(.*)", line):
            yield match[1]


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_every_flag_of_dlrm_in_the_docs_exists(path):
    known = set(TrainConfig.__dataclass_fields__) | {"help"}
    for command in commands_of_dlrm(path):
        asked = {flag.replace("-", "_") for flag in re.findall(r"--([\w-]+)", command)}
        assert asked <= known, f"{path.name}: {command}"


def test_commands_are_found():
    found = [command for path in DOCS for command in commands_of_dlrm(path)]
    assert len(found) > 10 and sum("--checkpoint_async" in command for command in found) >= 1


@pytest.mark.parametrize("path", DOCS, ids=lambda path: path.name)
def test_shell_in_the_docs_parses(path):
    for script in blocks(path, "bash"):
        run = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True)
        assert run.returncode == 0, f"{path.name}: {run.stderr}\n{script}"


def test_the_batch_script_saves_before_its_time_is_over_and_asks_for_more():
    cluster = next(path for path in DOCS if path.name == "cluster.md")
    script = next(script for script in blocks(cluster, "bash") if "#SBATCH" in script)
    options = re.findall(r"^#SBATCH --([\w-]+)", script, re.M)
    assert {"signal", "requeue", "time", "nodes"} <= set(options)
    assert "138" in script and "scontrol requeue" in script  # 128 + SIGUSR1, what the trainer exits with


def test_the_mpijob_is_one_and_its_command_is_the_trainers():
    cluster = next(path for path in DOCS if path.name == "cluster.md")
    job = yaml.safe_load(blocks(cluster, "yaml")[0])
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v2beta1", "MPIJob")
    replicas = job["spec"]["mpiReplicaSpecs"]
    container = replicas["Launcher"]["template"]["spec"]["containers"][0]
    assert container["command"][0] == "mpirun" and container["args"][0] == "dlrm"
    ranks = int(container["command"][container["command"].index("-np") + 1])
    assert ranks == replicas["Worker"]["replicas"] * job["spec"]["slotsPerWorker"]
    assert flags.parse(container["args"][1:], "dlrm").save_checkpoint_path == "/data/checkpoint"
