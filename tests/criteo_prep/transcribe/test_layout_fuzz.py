"""Every reader on damaged files: an error message or data within its bounds, never a crash, a hang or a big allocation.

A byte that turns one good id into another cannot be seen; what must hold is that whatever comes out is a dataset.
"""

import shutil
import tracemalloc

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.damage import damage, damaged
from support.layout_samples import FIXED, ONE_HOT, RAGGED, to_layout, write_tf_raw

from criteo_prep.feature_spec import FeatureSpec
from criteo_prep.transcribe.layout_spec import HOLDS_MULTI_HOT, HOLDS_RAGGED
from criteo_prep.transcribe.layouts import WRITERS
from criteo_prep.transcribe.tf_raw import Reader

DATA = {"one-hot": (ONE_HOT, tuple(WRITERS)), "fixed": (FIXED, HOLDS_MULTI_HOT), "ragged": (RAGGED, HOLDS_RAGGED)}
CASES = [(kind, layout) for kind, (_, layouts) in DATA.items() for layout in layouts]
PEAK_BYTES = 64 << 20  # of Python and numpy; the files have some hundred bytes each


@pytest.fixture(scope="module")
def datasets(tmp_path_factory):
    """kind -> layout -> folder."""
    made = {}
    for kind, (features, layouts) in DATA.items():
        raw = write_tf_raw(tmp_path_factory.mktemp("fuzz") / "raw", features, {"train": 9, "test": 3})
        made[kind] = {layout: to_layout(raw, "tf_raw", raw.parent / layout, layout) for layout in layouts}
    return made


def try_it(folder, layout, file, damages):
    """Damages a file of a copy, reads it, and checks what comes out."""
    copy, out = folder.parent / "copy", folder.parent / "out"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.rmtree(out, ignore_errors=True)
    shutil.copytree(folder, copy)
    content = (copy / file).read_bytes()
    for one in damages:
        content = damaged(content, *one)
    (copy / file).write_bytes(content)
    tracemalloc.start()
    try:
        to_layout(copy, layout, out, "tf_raw")
    except (ValueError, OSError) as error:
        assert str(error) and not out.exists()
    else:
        spec = FeatureSpec.load(out / "feature_spec.yaml")
        for split in spec.splits:
            with Reader(out, spec, split=split) as reader:
                reader.read(0, reader.num_samples)
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < PEAK_BYTES


def check(datasets, kind, layout, data):
    folder = datasets[kind][layout]
    files = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    try_it(folder, layout, data.draw(st.sampled_from(files)), data.draw(st.lists(damage, min_size=1, max_size=3)))


@pytest.mark.parametrize("kind, layout", CASES)
@settings(max_examples=15, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_damaged_file(datasets, kind, layout, data):
    check(datasets, kind, layout, data)


@pytest.mark.long
@pytest.mark.parametrize("kind, layout", CASES)
@settings(max_examples=400, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_a_damaged_file_many_times(datasets, kind, layout, data):
    check(datasets, kind, layout, data)
