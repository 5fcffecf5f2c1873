"""The shape of a model, which two runs must share to share a checkpoint. Plain data. No TensorFlow."""

import dataclasses
import json
from dataclasses import dataclass

from criteo_prep.feature_spec import FeatureSpec
from dlrm_tf2.config import ConfigError, TrainConfig, require
from dlrm_tf2.sharding.tables import TableConfig


@dataclass(frozen=True)
class ModelConfig:
    """The shape of a DLRM, which two runs must share to share a checkpoint.

    Attributes:
      features: categorical feature names, in channel order.
      cardinalities: number of different ids of each feature, in the same order.
      num_numerical: numerical columns.
      embedding_dim: width of the tables; where widths differ, the largest width.
      bottom_mlp_dims: as the flag; empty without numerical columns, where the model has no bottom MLP.
      top_mlp_dims, combiner, num_cross_layers, cross_layer_projection_dim: as the flags.
      embedding_dims: width of each table; empty where every table has embedding_dim.
      interaction: "dot", "cross" or "projection".
      hotness: ids per sample of each feature, None for any number; empty where every feature has one id.
      projection_dims: layer widths of both branches of the projection interaction; empty for other interactions.
    """

    features: tuple[str, ...]
    cardinalities: tuple[int, ...]
    num_numerical: int
    embedding_dim: int
    bottom_mlp_dims: tuple[int, ...]
    top_mlp_dims: tuple[int, ...]
    hotness: tuple[int | None, ...] = ()
    combiner: str = "sum"
    embedding_dims: tuple[int, ...] = ()
    interaction: str = "dot"
    num_cross_layers: int = 0
    cross_layer_projection_dim: int = 0
    projection_dims: tuple[tuple[int, ...], ...] = ()

    @classmethod
    def of(cls, config: TrainConfig, spec: FeatureSpec) -> "ModelConfig":
        """The model of the flags in `config`, for the dataset of `spec`."""
        require(
            bool(spec.categorical), f"{spec.path}: the dataset has no categorical features; a model needs at least one."
        )
        keys = [feature.name for feature in spec.categorical if feature.key]
        require(
            not keys,
            f"{spec.path}: the features {', '.join(keys)} hold raw keys, and a table has one row for each id below a "
            "cardinality. Give --dynamic_capacity N, or make the dataset with --ids vocabulary.",
        )
        kind = config.interaction if config.interaction in ("cross", "projection") else "dot"
        require(
            bool(spec.numerical) or kind == "cross",
            f"{spec.path}: the dataset has no numerical features, and the {kind} interaction needs the vector that the "
            "bottom MLP makes of them. Use --interaction cross, which then combines the embeddings alone.",
        )
        hotness = tuple(None if feature.ragged else feature.hotness for feature in spec.categorical)
        dims = config.embedding_dim
        dims = dims if isinstance(dims, tuple) else (dims,) * len(spec.categorical)
        require(
            len(dims) == len(spec.categorical),
            f"--embedding_dim has {len(dims)} widths, the dataset {len(spec.categorical)} categorical features. "
            "Give one for each, or one for all.",
        )
        cross = kind == "cross"
        branches = (config.projection_branch1_dims, config.projection_branch2_dims)
        return cls(
            features=spec.channels["categorical"],
            cardinalities=tuple(feature.cardinality for feature in spec.categorical),
            num_numerical=len(spec.numerical),
            embedding_dim=max(dims),
            bottom_mlp_dims=config.bottom_mlp_dims if spec.numerical else (),
            top_mlp_dims=config.top_mlp_dims,
            hotness=() if set(hotness) == {1} else hotness,
            combiner=config.combiner,
            embedding_dims=dims if len(set(dims)) > 1 else (),
            interaction=kind,
            num_cross_layers=config.num_cross_layers if cross else 0,
            cross_layer_projection_dim=config.cross_layer_projection_dim if cross else 0,
            projection_dims=branches if kind == "projection" else (),
        )

    @property
    def hotness_of(self) -> dict[str, int | None]:
        """Feature -> ids per sample; None for any number."""
        return dict(zip(self.features, self.hotness or (1,) * len(self.features), strict=True))

    @property
    def tables(self) -> tuple[TableConfig, ...]:
        """One table per categorical feature, in channel order."""
        return tuple(
            TableConfig(name, rows, embedding_dim=dim, combiner=None if self.hotness_of[name] == 1 else self.combiner)
            for name, rows, dim in zip(self.features, self.cardinalities, self.dims, strict=True)
        )

    @property
    def dims(self) -> tuple[int, ...]:
        """Width of each table."""
        return self.embedding_dims or (self.embedding_dim,) * len(self.features)

    @property
    def bottom_width(self) -> int:
        """Width of the bottom MLP's output; 0 without a bottom MLP."""
        return self.bottom_mlp_dims[-1] if self.bottom_mlp_dims else 0

    @property
    def num_interaction_weights(self) -> int:
        """Numbers in the kernels and biases of the cross layers, or of the projection's MLPs."""
        joined = self.bottom_width + sum(self.dims)
        branches = ((joined, *dims) for dims in self.projection_dims)
        projection = sum((a + 1) * b for widths in branches for a, b in zip(widths, widths[1:], strict=False))
        width, rank = self.interaction_width, self.cross_layer_projection_dim
        return projection + self.num_cross_layers * (width * (2 * rank if rank else width) + width)

    @property
    def interaction_width(self) -> int:
        """Width of the interaction's output, the top MLP's input. The output of dot is padded to a multiple of 8."""
        if self.interaction == "cross":
            return self.bottom_width + sum(self.dims)
        if self.interaction == "projection":
            rows, columns = (dims[-1] // self.embedding_dim for dims in self.projection_dims)
            return self.embedding_dim + rows * columns
        vectors = len(self.features) + 1
        return -(-(self.embedding_dim + vectors * (vectors - 1) // 2) // 8) * 8

    def document(self) -> dict:
        """The shape as JSON values, for a checkpoint."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    @classmethod
    def from_document(cls, document: dict) -> "ModelConfig":
        """The model of a checkpoint's document, which may be older than some fields of this class."""
        return cls(**{name: _tuples(value) for name, value in document.items()})

    def check_same(self, other: dict, path: str) -> None:
        """Raises ConfigError, with the first difference, if the checkpoint at `path` holds another model."""
        shape = [field.name for field in dataclasses.fields(self) if field.default is dataclasses.MISSING]
        plain = type(self)(*(getattr(self, name) for name in shape)).document()
        for name, ours in self.document().items():
            theirs = other.get(name, None if name in shape else plain[name])  # an older checkpoint lacks the field
            if ours == theirs:
                continue
            if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
                index = next(i for i, (a, b) in enumerate(zip(ours, theirs, strict=True)) if a != b)
                name, ours, theirs = f"{name}[{index}]", ours[index], theirs[index]
            raise ConfigError(
                f"{path}: the checkpoint's {name} is {theirs!r}, this run's is {ours!r}. "
                "Use the flags and the dataset that it was trained with."
            )


def _tuples(value: object) -> object:
    """A JSON value with tuples in place of lists."""
    return tuple(_tuples(part) for part in value) if isinstance(value, list) else value
