"""The trainer's command line, made from TrainConfig's fields: each flag is defined once, there."""

import argparse
import dataclasses
import json
import typing
from collections.abc import Mapping
from pathlib import Path

from dlrm_tf2.config import ConfigError, TrainConfig

# Flags of NVIDIA's DLRM and DCNv2 that are not here yet. They are refused by name, so that no script believes in them.
NOT_THERE = frozenset(
    """concat_embedding
    embedding_trainable
    embedding_zeros_initializer
    run_eagerly synthetic_dataset_cardinalities
    synthetic_dataset_hotness synthetic_dataset_num_numerical_features
    synthetic_dataset_use_feature_spec tfdata_debug use_mde_embeddings""".split()
)


def parse(arguments: list[str], program: str, defaults: Mapping[str, object] | None = None) -> TrainConfig:
    """Turns a command line into a TrainConfig.

    Args:
      defaults: flag -> its default, where it is not TrainConfig's.

    Flags are written with underscores or hyphens, `--flag value` or `--flag=value`, and never abbreviated. A boolean
    flag is `--amp`, `--amp=true`, `--amp=false` or `--noamp`.

    Raises:
      ConfigError: a flag is not there, or a value is not of its kind.
      SystemExit: after --help.
    """
    parser = _parser(program)
    parser.set_defaults(**(defaults or {}))
    values, unknown = parser.parse_known_args([_underscored(argument) for argument in arguments])
    if unknown:
        raise ConfigError(_refusal(unknown[0]))
    return TrainConfig(**vars(values))


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> typing.NoReturn:
        raise ConfigError(f"{message}. See --help.")


def _parser(program: str) -> argparse.ArgumentParser:
    parser = _Parser(
        prog=program,
        description="Trains, evaluates or benchmarks DLRM on a dataset in the feature-spec layout.",
        allow_abbrev=False,
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    types = typing.get_type_hints(TrainConfig)
    for field in dataclasses.fields(TrainConfig):
        kind = types[field.name]
        flag, help_text = f"--{field.name}", field.metadata["help"]
        if kind is bool:
            parser.add_argument(flag, nargs="?", const=True, type=_boolean, default=field.default, help=help_text)
            parser.add_argument(
                f"--no{field.name}",
                dest=field.name,
                action="store_false",
                help=argparse.SUPPRESS,
                default=argparse.SUPPRESS,
            )
            continue
        default = field.default
        if kind == tuple[int, ...]:
            default = ",".join(str(width) for width in default)
        parser.add_argument(
            flag, type=_CONVERTERS[kind], default=default, choices=field.metadata["choices"], help=help_text
        )
    return parser


def _underscored(argument: str) -> str:
    if not argument.startswith("--"):
        return argument
    name, equals, value = argument.partition("=")
    return "--" + name[2:].replace("-", "_") + equals + value


def _refusal(argument: str) -> str:
    name = argument.lstrip("-").partition("=")[0]
    if name in NOT_THERE or name.removeprefix("no") in NOT_THERE:
        return f"--{name} is a flag of the published trainers that this one does not have yet. Leave it out."
    if argument.startswith("-"):
        return f"--{name} is not a flag of this program. See --help for those it has; flags are not abbreviated."
    return f"{argument!r} does not belong to any flag. See --help."


def _boolean(text: str) -> bool:
    if text.lower() in ("true", "1", "yes"):
        return True
    if text.lower() in ("false", "0", "no"):
        return False
    raise argparse.ArgumentTypeError(f"{text!r} is neither true nor false")


def _widths(text: str) -> tuple[int, ...]:
    try:
        return tuple(int(width) for width in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a list of whole numbers such as 512,256,128") from None


def _width_or_widths(text: str) -> int | tuple[int, ...]:
    if text.endswith(".json"):
        try:
            text = ",".join(str(width) for width in json.loads(Path(text).read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise argparse.ArgumentTypeError(f"{text}: is not a JSON list of whole numbers: {error}") from None
    widths = _widths(text)
    return widths if len(widths) > 1 else widths[0]


def _whole(text: str) -> int:
    """A whole number; 100.0 is one too, because the published print_freq is a float flag."""
    try:
        number = float(text)
        if number == int(number):
            return int(text) if text.lstrip("+-").isdigit() else int(number)
    except (ValueError, OverflowError):
        pass
    raise argparse.ArgumentTypeError(f"{text!r} is not a whole number")


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None


_CONVERTERS = {
    str: str,
    str | None: str,
    int: _whole,
    int | None: _whole,
    float: _number,
    float | None: _number,
    tuple[int, ...]: _widths,
    int | tuple[int, ...]: _width_or_widths,
}
