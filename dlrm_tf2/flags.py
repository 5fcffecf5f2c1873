"""The trainer's command line, made from TrainConfig's fields: each flag is defined once, there."""

import argparse
import dataclasses
import json
import typing
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from dlrm_tf2.config import GROUPS, ConfigError, TrainConfig

# Flags of NVIDIA's DLRM and DCNv2 that this program does not have. They are refused by name: no script relies on them.
NOT_SUPPORTED = frozenset(
    """concat_embedding embedding_trainable embedding_zeros_initializer run_eagerly synthetic_dataset_cardinalities
    synthetic_dataset_hotness synthetic_dataset_num_numerical_features synthetic_dataset_use_feature_spec tfdata_debug
    use_mde_embeddings""".split()
)


def parse(arguments: Sequence[str], program: str, defaults: Mapping[str, object] | None = None) -> TrainConfig:
    """Turns a command line into a TrainConfig.

    Flags are written with underscores or hyphens, `--flag value` or `--flag=value`, and never abbreviated. A boolean
    flag is `--amp`, `--amp=true`, `--amp=false` or `--noamp`.

    Args:
      arguments: words of the command line, without the program.
      program: name of the program in its help.
      defaults: flag -> default, for the flags whose default differs from TrainConfig's.

    Raises:
      ConfigError: a flag does not exist, or its value is not allowed.
      SystemExit: after --help.
    """
    parser = _parser(program)
    parser.set_defaults(**(defaults or {}))
    values, unknown = parser.parse_known_args(with_underscores(arguments))
    if unknown:
        raise ConfigError(_refusal(unknown[0]))
    return TrainConfig(**vars(values))


def with_underscores(arguments: Sequence[str]) -> list[str]:
    """The words of a command line with --some-flag as --some_flag; values stay as they are."""
    words = []
    for argument in arguments:
        flag, equals, value = argument.partition("=")
        if flag.startswith("--"):
            flag = "--" + flag[2:].replace("-", "_")
        words.append(flag + equals + value)
    return words


class Parser(argparse.ArgumentParser):
    """Reports a wrong command line as a ConfigError."""

    def error(self, message: str) -> typing.NoReturn:
        raise ConfigError(f"{message.removeprefix('argument ')}. See --help.")


def _parser(program: str) -> argparse.ArgumentParser:
    parser = Parser(
        prog=program,
        usage=f"{program} --dataset_path PATH [--flag VALUE ...]",
        description="Trains, evaluates or benchmarks DLRM on a dataset with a feature spec.",
        allow_abbrev=False,
    )
    groups = {name: parser.add_argument_group(title) for name, title in GROUPS.items()}
    types = typing.get_type_hints(TrainConfig)
    for field in dataclasses.fields(TrainConfig):
        _add_flag(groups[field.metadata["group"]], field, types[field.name])
    return parser


def add_boolean(group: argparse._ActionsContainer, name: str, *, default: object, help_text: str) -> None:
    """Adds a boolean flag, as --name, --name=true, --name=false and --noname."""
    group.add_argument(
        f"--{name}", nargs="?", const=True, type=_boolean, default=default, help=help_text, metavar="true|false"
    )
    hidden = argparse.SUPPRESS
    group.add_argument(f"--no{name}", dest=name, action="store_false", help=hidden, default=hidden)


def _add_flag(group: argparse._ArgumentGroup, field: dataclasses.Field, kind: object) -> None:
    flag, help_text, default = f"--{field.name}", field.metadata["help"], field.default
    if kind is bool:
        add_boolean(group, field.name, default=default, help_text=help_text)
        return
    converter, metavar = _CONVERTERS[kind]
    choices = field.metadata["choices"]
    if default is not None:
        default = ",".join(map(str, default)) if isinstance(default, tuple) else default
        help_text += " (default: %(default)s)"
    group.add_argument(
        flag,
        type=converter,
        default=default,
        choices=choices,
        help=help_text,
        metavar=None if choices else metavar,
    )


def _refusal(argument: str) -> str:
    name = argument.lstrip("-").partition("=")[0]
    if name in NOT_SUPPORTED or name.removeprefix("no") in NOT_SUPPORTED:
        return f"--{name} is a flag of the published trainers that this program does not have yet. Leave it out."
    if argument.startswith("-"):
        return f"--{name} is not a flag of this program. See --help for its flags; they cannot be abbreviated."
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


# Type of a field -> what turns the text into a value, and how --help writes the value.
_CONVERTERS: dict[object, tuple[Callable[[str], typing.Any], str]] = {
    str: (str, "PATH"),
    str | None: (str, "PATH"),
    int: (_whole, "N"),
    int | None: (_whole, "N"),
    float: (_number, "X"),
    float | None: (_number, "X"),
    tuple[int, ...]: (_widths, "N,N,..."),
    int | tuple[int, ...]: (_width_or_widths, "N[,N,...]"),
    int | tuple[int, ...] | None: (_width_or_widths, "N[,N,...]"),
}
