"""From a file in the form of a public log to an AUC: the dataset of a schema trains as it is."""

import math

import pytest
from support.in_process import run
from support.public_logs import FORMS

from criteo_prep.preprocess.request import Resources
from criteo_prep.table.run import preprocess_table

pytestmark = pytest.mark.long


@pytest.mark.parametrize("form", FORMS)
def test_a_public_form_trains(form, tmp_path):
    log = FORMS[form](tmp_path)
    (tmp_path / "schema.yaml").write_text(log.schema.replace("{T}", "3"), encoding="utf-8")
    outcome = preprocess_table([log.path], tmp_path / "set", schema=tmp_path / "schema.yaml", options={},
                               resources=Resources(2, quiet=True))  # fmt: skip
    shape = [] if outcome.spec.numerical else ["--interaction", "cross", "--interaction_op", "auto"]
    trained = run(tmp_path / "set", tmp_path / "log.jsonl", "--epochs", 2, *shape)
    losses, aucs = trained.column("loss"), trained.column("auc")
    assert losses and all(map(math.isfinite, losses)) and all(0 <= auc <= 1 for auc in aucs) and aucs
    assert outcome.manifest["splits"]["train"]["num_samples"] == log.num_train
