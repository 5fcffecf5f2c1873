"""The command: verbs, flags, exit codes, messages. The tests of the library test the work itself."""

import os
import shutil
import subprocess
import sys

import pytest

import criteo_prep
from criteo_prep import cli
from criteo_prep.destination import new_dataset

ROW = "\t".join(["1", *["5"] * 13, *["0000000a"] * 26])


@pytest.fixture
def rows(tmp_path):
    path = tmp_path / "rows.tsv"
    path.write_text(f"{ROW}\n" * 20)
    return path


def run(capsys, *argv):
    """Returns (exit code, stdout, stderr)."""
    code = cli.main([str(word) for word in argv])
    return code, *capsys.readouterr()


def test_preprocess(tmp_path, rows, capsys):
    code, out, err = run(capsys, "preprocess", "--input", rows, "--output", tmp_path / "set", "--threshold", 3)
    assert code == 0
    assert "samples: train 18, test 2" in out and f"{tmp_path / 'set'}: complete" in out
    assert "sum 52" in out  # 26 columns with one value and id 0
    assert [line.split(":")[0] for line in err.splitlines()] == ["criteo-prep", "parse", "arrange", "columns"]
    assert "preflight: about 20 rows" in err
    code, out, err = run(capsys, "preprocess", "--input", rows, "--output", tmp_path / "set", "--threshold", 3)
    assert (code, err) == (0, "") and f"{tmp_path / 'set'}: already complete" in out
    code, out, err = run(capsys, "preprocess", "--input", rows, "--output", tmp_path / "set", "--threshold", 2)
    assert code == 0 and err.count("threshold: existing 3, requested 2") == 2  # before and after
    assert "which are parsed again" in err and "replaced the existing dataset" in err
    code, out, err = run(
        capsys, *("preprocess --threshold 2 --shuffle global --input".split()), rows, "--output", tmp_path / "set"
    )
    assert (code, out) == (1, "") and "shuffle: existing none, requested 'global'" in err and "--overwrite" in err


def test_another_run_in_the_same_folder_is_not_told_to_be_deleted(tmp_path, rows, capsys):
    with new_dataset(tmp_path / "set", resume=True) as root:
        (root / "theirs").touch()
        code, _, err = run(capsys, "preprocess", "--input", rows, "--output", tmp_path / "set", "--threshold", 3)
    assert code == 1 and "another process is writing" in err and "elete" not in err


def test_quiet_and_hyphens_and_equals_signs(tmp_path, rows, capsys):
    argv = ["preprocess", f"--input={rows}", f"--output={tmp_path}/a-set", "--threshold=0", "--test-fraction=0.5"]
    code, out, err = run(capsys, *argv, "--on-bad-row", "skip", "--quiet")
    assert (code, err) == (0, "") and "samples: train 10, test 10" in out
    assert (tmp_path / "a-set" / "manifest.json").exists()


def test_skipped_rows_are_said_aloud_even_when_quiet(tmp_path, rows, capsys):
    rows.write_text(f"{ROW}\nheader\n{ROW}\n")
    argv = ["preprocess", "--input", rows, "--output", tmp_path / "set", "--threshold", 0, "--quiet"]
    code, out, err = run(capsys, *argv)
    assert code == 1 and "rows.tsv: line 2: found 1 fields; expected 40" in err
    code, out, err = run(capsys, *argv, "--on_bad_row", "skip")
    assert code == 0 and "bad rows skipped: 1 (1 too_few_fields)" in out
    assert "criteo-prep: skipped: " in err and "line 2: found 1 fields" in err


def test_names_that_are_not_utf8(tmp_path, rows, capsys, monkeypatch):
    """Such an input does no harm. Such a destination, or a folder above it, is refused before the parse."""
    odd = os.fsdecode(os.fsencode(tmp_path) + b"/odd\xff")
    os.mkdir(odd)
    shutil.copy(rows, odd)
    command = ["preprocess", "--threshold", "3", "--quiet", "--input", f"{odd}/rows.tsv", "--output"]
    monkeypatch.chdir(odd)
    for output in (f"{odd}/set", "set"):
        code, _, err = run(capsys, *command, output)
        assert code == 1 and "odd\\xff/set': the name is not UTF-8. Name another destination." in err
    assert os.listdir(odd) == ["rows.tsv"]
    assert run(capsys, *command, tmp_path / "set")[0] == 0


def test_an_os_error_is_one_line(tmp_path, rows, capsys):
    (tmp_path / "file").write_text("")
    code, out, err = run(
        capsys, "preprocess", "--input", rows, "--output", tmp_path / "file" / "set", "--threshold", 0, "--quiet"
    )
    assert code == 1 and err.startswith("criteo-prep: ") and err.count("\n") == 1


def test_interrupted(monkeypatch, capsys):
    def interrupt(argv):
        """stands for a verb"""
        raise KeyboardInterrupt

    monkeypatch.setitem(cli.VERBS, "preprocess", interrupt)
    assert run(capsys, "preprocess") == (130, "", "criteo-prep: interrupted; nothing half-written is left\n")


@pytest.mark.parametrize(
    "argv, message",
    [
        ([], "required: VERB"),
        (["preproces"], "invalid choice: 'preproces'"),
        (["preprocess", "--input", "x", "--output", "y"], "required: --threshold"),
        (["preprocess", "--input", "x", "--output", "y", "--thresh", "3"], "unrecognized arguments: --thresh"),
        (["preprocess", "--input", "x", "--output", "y", "--threshold", "3", "--seed", "x"], "invalid int value: 'x'"),
        (["preprocess", "--input", "x", "--output", "y", "--threshold", "3", "--shufle"], "arguments: --shufle"),
        (["preprocess", "--input", "x", "--output", "y", "--threshold", "3", "--on_bad_row", "x"], "invalid choice"),
    ],
)
def test_wrong_arguments_exit_2(capsys, argv, message):
    with pytest.raises(SystemExit) as exit_:
        cli.main(argv)
    assert exit_.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv, expected",
    [
        (["--help"], "generate-feature-spec"),
        (["preprocess", "--help"], "--vocabulary_days {all,train}"),
        (["--version"], criteo_prep.__version__),
    ],
)
def test_help(capsys, argv, expected):
    with pytest.raises(SystemExit) as exit_:
        cli.main(argv)
    assert exit_.value.code == 0
    out = capsys.readouterr().out
    assert expected in out


def test_help_loads_nothing_heavy():
    program = (
        "import sys\nfrom criteo_prep import cli\n"
        "try:\n cli.main(['preprocess', '--help'])\nexcept SystemExit:\n pass\n"
        "print('loaded', sorted({'numba', 'numpy', 'pyarrow', 'polars', 'tensorflow'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "loaded []"


def test_as_a_module():
    done = subprocess.run([sys.executable, "-m", "criteo_prep", "preprocess"], capture_output=True, text=True)
    assert done.returncode == 2 and "criteo-prep preprocess: error: the following arguments are required" in done.stderr


@pytest.mark.parametrize("verb", [
    "preprocess --input rows.tsv --output set --threshold 0", "encode --vocabulary set --input rows.tsv --output new",
    "verify set", "synthesize --preset criteo_t15 --num_samples 9 --dst set",
])  # fmt: skip
def test_every_verb_with_workers_refuses_zero_and_says_why(verb, capsys):
    assert run(capsys, *verb.split(), "--workers", 0) == (1, "", "criteo-prep: --workers 0: must be at least 1.\n")
