"""The feature spec of a synthetic dataset: a source for `transcribe`, or for training without files.

    python -m criteo_prep.generate_feature_spec --variant criteo_t15_synthetic --dst feature_spec.yaml

Source: NVIDIA's dataloading.generate_feature_spec has the same flags, defaults and content.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from criteo_prep.flags import run_program

DST = "feature_spec.yaml"


def generate_feature_spec(variant: str, dst: str | Path) -> str:
    """Writes the feature spec of a preset. Returns a summary line.

    Args:
      variant: name of the preset.
      dst: file to write. An existing feature spec is replaced, unless it is a part of a dataset.

    Raises:
      PresetError: there is no such preset.
      DestinationError: `dst` is not a feature spec, or a part of a dataset that this program made.
      OSError: the file cannot be written.
    """
    from criteo_prep.guard import check_spec_free
    from criteo_prep.synthetic.presets import preset, published_spec

    chosen = preset(variant)
    dst = Path(dst)
    check_spec_free(dst)
    dst.parent.mkdir(parents=True, exist_ok=True)
    published_spec(chosen).save(dst)
    rows = sum(feature.cardinality for feature in chosen.categorical)
    return f"{dst}: {variant}, {len(chosen.categorical)} categorical features, {rows:,} ids in all"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--variant",
        required=True,
        help="criteo_t15_synthetic, criteo_t3_synthetic or criteo_t0_synthetic; "
        "criteo_t3 and criteo_t0 have the same numbers in natural column order",
    )
    parser.add_argument("--dst", default=DST, help="the file to write (default: %(default)s)")


def run(arguments: argparse.Namespace) -> int:
    print(generate_feature_spec(arguments.variant, arguments.dst))
    return 0


def main(argv: Sequence[str] | None = None, name: str = "python -m criteo_prep.generate_feature_spec") -> int:
    return run_program(name, __doc__, add_arguments=add_arguments, run=run, argv=argv)


if __name__ == "__main__":
    sys.exit(main())
