"""No verb deletes what it reads, and --overwrite replaces only what this program made."""

import re
import resource
import shutil
import signal

import numpy as np
import pytest
from support.log_samples import content, random_rows, write_rows

from criteo_prep import cli
from criteo_prep.progress import Progress

SYNTHESIZE = "synthesize --preset criteo_t3 --scale 0.0001 --num_samples 20 --quiet --dst".split()


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """Logs, a dataset of preprocess, a synthetic dataset, records and their parts, and a feature spec."""
    root = tmp_path_factory.mktemp("made")
    (root / "logs").mkdir()
    write_rows(root / "logs" / "train.txt", random_rows(1, 40))
    assert cli.main(f"preprocess --input {root}/logs --output {root}/set --threshold 2 --quiet".split()) == 0
    assert cli.main([*SYNTHESIZE, f"{root}/synthetic"]) == 0
    (root / "records").mkdir()
    np.zeros(40 * 10, np.int32).tofile(root / "records" / "train.bin")
    assert cli.main(f"split-bin {root}/records/train.bin {root}/parts --quiet".split()) == 0
    (root / "spec").mkdir()
    assert cli.main(f"generate-feature-spec --variant criteo_t3 --dst {root}/spec/spec.yaml".split()) == 0
    return root


@pytest.fixture
def place(made, tmp_path, monkeypatch):
    shutil.copytree(made, tmp_path / "place")
    monkeypatch.chdir(tmp_path / "place")
    return tmp_path / "place"


@pytest.mark.parametrize("command", [
    "preprocess --input logs/train.txt --output logs --threshold 2",
    "preprocess --input logs --output logs --threshold 2",
    "preprocess --input logs --output logs/new --threshold 2",
    "preprocess --input set/train/label.bin --test_file logs/train.txt --output logs --threshold 2",
    "encode --vocabulary set --input logs --output set",
    "encode --vocabulary set --input logs --output set/new",
    "encode --vocabulary set --input logs --output logs",
    "encode --vocabulary set/../set --input logs/train.txt --output set/train",
    "transcribe --src_dataset_path set --dst_dataset_path set",
    "transcribe --src_dataset_path set --dst_dataset_path set/train",
    "transcribe --src_dataset_path set --dst_dataset_path set/new",
    "transcribe --src_dataset_type synthetic --src_dataset_path spec --src_feature_spec spec.yaml --dst_dataset_path "
    "spec",
    "split-bin records/train.bin records",
    "split-bin records/train.bin records --layout tf_raw",
    "split-bin --join parts parts/category.bin",
    "split-bin --join parts parts/new.bin",
])  # fmt: skip
def test_no_verb_deletes_its_input(place, command, capsys):
    before = content(place)
    assert cli.main([*command.split(), "--overwrite"]) == 1
    message = capsys.readouterr().err
    assert "which is read" in message or "is read, and would be lost" in message
    assert content(place) == before


VERBS = {
    "preprocess": "preprocess --input logs --threshold 2 --quiet --output",
    "encode": "encode --vocabulary set --input logs --quiet --output",
    "synthesize": " ".join(SYNTHESIZE),
    "transcribe": "transcribe --src_dataset_path synthetic --dst_dataset_type tf_raw --dst_dataset_path",
    "split-bin": "split-bin records/train.bin",
    "split-bin tf_raw": "split-bin records/train.bin --layout tf_raw",
}


@pytest.mark.parametrize("verb", VERBS)
def test_overwrite_replaces_a_dataset_and_nothing_else(place, verb, capsys):
    command = VERBS[verb].split()
    assert cli.main([*command, "new"]) == 0
    first = content(place / "new")
    assert cli.main([*command, "new", "--overwrite"]) == 0
    assert content(place / "new").keys() == first.keys()
    (place / "new" / "thesis.txt").write_text("mine")
    before = content(place)
    capsys.readouterr()
    assert cli.main([*command, "new", "--overwrite"]) == 1
    assert "new: holds thesis.txt, which this program did not make" in capsys.readouterr().err
    assert content(place) == before


@pytest.mark.parametrize("verb", VERBS)
def test_a_verb_does_not_replace_the_current_folder(place, verb, monkeypatch, capsys):
    (place / "here").mkdir()
    command = [word if not (place / word).exists() else f"../{word}" for word in VERBS[verb].split()]
    monkeypatch.chdir(place / "here")
    before = content(place)
    assert cli.main([*command, "."]) == 1
    assert ".: is or holds the current folder, which would be lost" in capsys.readouterr().err
    assert content(place) == before


@pytest.mark.parametrize("verb", [*VERBS, "split-bin --join"])
def test_sigterm_leaves_nothing(place, verb, monkeypatch, capsys):
    command = VERBS.get(verb, "split-bin --join parts").split()
    before = content(place)

    def advance(progress, amount):
        if progress.stage not in ("parse", "arrange"):  # before their end, preprocess has nothing to keep
            signal.raise_signal(signal.SIGTERM)

    monkeypatch.setattr(Progress, "advance", advance)
    assert cli.main([*command, "new"]) == 143
    assert "ended by SIGTERM" in capsys.readouterr().err
    after = content(place)
    if verb in ("preprocess", "encode"):  # they keep the finished part of their work, for the next run
        monkeypatch.undo()
        monkeypatch.chdir(place)
        assert any(name.startswith(".new.partial/") for name in after) and cli.main([*command, "new"]) == 0
    else:
        assert after == before


@pytest.mark.parametrize("limit", [1, 700])
@pytest.mark.parametrize("verb", VERBS)
def test_a_full_disk_is_an_error_that_names_a_file(place, verb, limit, capsys):
    """A limit on the size of files stands for the disk: the kernel refuses the write in the same place."""
    before = content(place)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        code = cli.main([*VERBS[verb].split(), "new"])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert code == 1
    assert re.search(r"File too large.*: '/.*/\.new\.partial[^']*'$", capsys.readouterr().err.splitlines()[-1])
    assert not (place / "new").exists()
    if verb not in ("preprocess", "encode"):
        assert content(place) == before


def test_other_ids_do_not_replace_a_dataset_with_other_files_in_it(place, capsys):
    (place / "set" / "thesis.txt").write_text("mine")
    assert cli.main("preprocess --input logs --output set --threshold 5 --quiet".split()) == 1
    assert "set: holds thesis.txt" in capsys.readouterr().err
    assert (place / "set" / "thesis.txt").read_text() == "mine"


@pytest.mark.parametrize("name, message", [
    ("logs/train.txt", "train.txt: is not a feature spec"), ("parts/metadata.json", "is not a feature spec"),
    ("set/feature_spec.yaml", "describes a dataset"), ("synthetic/feature_spec.yaml", "describes a dataset"),
    ("set", "set: is a folder. Name a file"),
])  # fmt: skip
def test_generate_feature_spec_replaces_only_a_spec_without_a_dataset(place, name, message, capsys):
    before = content(place)
    assert cli.main(f"generate-feature-spec --variant criteo_t0 --dst {name}".split()) == 1
    assert message in capsys.readouterr().err and content(place) == before
    assert cli.main("generate-feature-spec --variant criteo_t0 --dst spec/spec.yaml".split()) == 0
    assert content(place) != before
