"""Configurations of sparse autoencoders: one typed model an architecture, unknown keys forbidden."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from itertools import pairwise
from typing import Annotated, Any, Literal, TypeVar

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    SerializeAsAny,
    TypeAdapter,
    ValidationError,
    WrapValidator,
)

from helix_sae.errors import ConfigurationError

Config = TypeVar("Config", bound="SaeConfig")


class SaeConfig(BaseModel):
    """What every architecture shares; use one of the subclasses, or :func:`parse_sae_config`.

    Attributes
    ----------
    architecture : str
        Name in the registry.
    d_in : int, optional
        Width of the activations. Left out, it is read from the data; given, the data must agree.
    expansion_factor : float
        Features per input dimension, ``d_sae = round(expansion_factor * d_in)``; up to 64. Activations that
        live in a few directions want few: at or below 1 other seeds find the same features again.
    learning_rate : float, optional
        Peak rate of Adam. Left out: ``2e-4 * sqrt(16384 / d_sae)``, the rule of Gao et al. (2024,
        arXiv:2406.04093).
    warmup_fraction, decay_fraction : float
        Share of the steps over which the rate rises from 0 at the start and falls to 0 at the end (linear).
    gradient_clip : float
        Largest L2 norm of one SAE's whole gradient.
    dead_after_tokens : int
        A feature that was not active for so many tokens is dead and gets revived.
    resample : bool
        Whether dead features are restarted from badly reconstructed activations; where AuxK is on, those that
        it cannot reach because their pre-activation is nowhere positive.
    data_start : float
        How far the starting directions lean towards activations drawn from the data, 0 (random) to 1. Where
        activations keep to a few directions, random features hardly ever fire, and die; those that start on
        the data live.
    start_factor : float
        How many times as many features there are at the start; those that carry least are let go when
        ``prune_fraction`` of the steps are done. From more starts the same features are found more often.
    prune_fraction : float
        See ``start_factor``.
    seed : int
        Added to the seed of the run, for the start and the order of the data.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    architecture: str
    d_in: int | None = Field(default=None, ge=1)
    expansion_factor: float = Field(default=4.0, gt=0.0, le=64.0)
    learning_rate: float | None = Field(default=None, gt=0.0, le=1.0)
    warmup_fraction: float = Field(default=0.05, ge=0.0, le=0.5)
    decay_fraction: float = Field(default=0.25, ge=0.0, le=1.0)
    gradient_clip: float = Field(default=1.0, gt=0.0)
    dead_after_tokens: int = Field(default=50_000, ge=1)
    resample: bool = True
    data_start: float = Field(default=0.0, ge=0.0, le=1.0)
    start_factor: float = Field(default=1.0, ge=1.0, le=16.0)
    prune_fraction: float = Field(default=0.3, ge=0.0, lt=1.0)
    seed: int = Field(default=0, ge=0)

    @property
    def at_the_start(self: Config) -> Config:
        """The configuration with as many features as training begins with."""
        return self.model_copy(update={"expansion_factor": self.start_factor * self.expansion_factor})

    @property
    def d_sae(self) -> int:
        """Number of features; needs ``d_in``."""
        if self.d_in is None:
            raise ConfigurationError(
                f"The number of features of this {self.architecture} configuration is not known before d_in"
                " is; call config.resolve(d_in)."
            )
        return round(self.expansion_factor * self.d_in)

    @property
    def peak_rate(self) -> float:
        """Peak learning rate, given or by the rule above; needs ``d_in``."""
        return self.learning_rate if self.learning_rate is not None else 2e-4 * (16384 / self.d_sae) ** 0.5

    def resolve(self: Config, d_in: int, site: str = "the data") -> Config:
        """Return the configuration with ``d_in`` filled in and everything that depends on it checked.

        Raises
        ------
        ConfigurationError
            If ``d_in`` was given and differs, or a bound that depends on it is broken.
        """
        if self.d_in not in (None, d_in):
            raise ConfigurationError(
                f"The configuration says d_in = {self.d_in} but the activations of {site} are {d_in} wide; "
                "leave d_in out or train on the site it was meant for."
            )
        resolved = self.model_copy(update={"d_in": d_in})
        resolved.check_width(site)
        return resolved

    def check_width(self, site: str) -> None:
        """Raise :class:`ConfigurationError` for settings that do not fit ``d_sae``; subclasses add theirs."""


class L1Config(SaeConfig):
    """Settings shared by the L1 architectures.

    Attributes
    ----------
    l1_coefficient : float
        Price, in shares of the variance, of activity worth one per cent of the mean activation norm; usually
        1e-4 to 1e-2. Counted so, it means the same at every site, ``d_in`` and ``expansion_factor``.
    sparsity_warmup_fraction : float
        Share of the steps over which the penalty rises from 0.
    """

    l1_coefficient: float = Field(default=1e-3, gt=0.0, le=1.0)
    sparsity_warmup_fraction: float = Field(default=0.1, ge=0.0, le=1.0)

    @property
    def penalty(self) -> float:
        """Weight of the summed codes of activations scaled to mean norm ``sqrt(d_in)``; needs ``d_in``."""
        return 100.0 * self.l1_coefficient / float(self.d_in or 1) ** 0.5


class ReluConfig(L1Config):
    """ReLU with an L1 penalty, encoder and decoder apart.

    Attributes
    ----------
    stretch : bool
        Whether the shrinkage of the codes by the penalty is undone when training is over.
    """

    architecture: Literal["relu"] = "relu"
    stretch: bool = True


class ReluTiedConfig(L1Config):
    """The original's form: ``c = ReLU(W x + b)``, ``x_hat = W^T c``; settings as :class:`ReluConfig`."""

    architecture: Literal["relu_tied"] = "relu_tied"


class AuxiliaryConfig(SaeConfig):
    """Settings shared by the architectures whose dead features learn through AuxK.

    Attributes
    ----------
    aux_coefficient : float
        Weight of the auxiliary loss through which dead features learn (AuxK); 0 turns it off.
    aux_k : int, optional
        Dead features that take part for each token; default ``d_in // 2``.
    """

    aux_coefficient: float = Field(default=1 / 32, ge=0.0)
    aux_k: int | None = Field(default=None, ge=1)


class SelectConfig(AuxiliaryConfig):
    """Settings shared by the architectures that choose k features.

    Attributes
    ----------
    k : int
        Active features a token; of ``batchtopk`` and ``matryoshka`` the mean number.
    """

    k: int = Field(default=32, ge=1)

    def check_width(self, site: str) -> None:
        """Check ``k`` against ``d_sae``."""
        if self.k > self.d_sae:
            raise ConfigurationError(
                f"k = {self.k} active features cannot be chosen among the d_sae = {self.d_sae} of {site}"
                f" (d_in = {self.d_in}, expansion_factor = {self.expansion_factor}); lower k or raise the"
                " expansion."
            )


class TopKConfig(SelectConfig):
    """The k largest pre-activations of each token."""

    architecture: Literal["topk"] = "topk"


class BatchTopKConfig(SelectConfig):
    """The ``n k`` largest pre-activations of each batch of n tokens; settings as :class:`TopKConfig`.

    ``k`` is the mean number of active features.
    """

    architecture: Literal["batchtopk"] = "batchtopk"


class MatryoshkaConfig(SelectConfig):
    """Nested BatchTopK dictionaries; settings as :class:`BatchTopKConfig`.

    Attributes
    ----------
    prefix_shares : tuple of float
        Sizes of the nested dictionaries as shares of ``d_sae``, ascending; the last is 1.
    """

    architecture: Literal["matryoshka"] = "matryoshka"
    prefix_shares: tuple[float, ...] = (1 / 16, 1 / 8, 1 / 4, 1 / 2, 1.0)

    @property
    def prefixes(self) -> tuple[int, ...]:
        """Numbers of features of the nested dictionaries; needs ``d_in``."""
        return tuple(round(share * self.d_sae) for share in self.prefix_shares)

    def check_width(self, site: str) -> None:
        """Check ``k`` and the nesting against ``d_sae``."""
        super().check_width(site)
        sizes = (0, *self.prefixes)
        if self.prefix_shares[-1:] != (1.0,) or any(b <= a for a, b in pairwise(sizes)):
            raise ConfigurationError(
                f"prefix_shares = {self.prefix_shares} give nested dictionaries of {sizes[1:]} features at"
                f" {site}; they must grow, from at least 1 feature, and end with all (1.0)."
            )


class JumpReluConfig(AuxiliaryConfig):
    """A learned threshold for each feature, and a price for each active one.

    Attributes
    ----------
    l0_coefficient : float
        Price of one active feature a token, in shares of the variance.
    bandwidth : float
        Width of the rectangle through which thresholds learn, in the unit of scaled activations (their
        product with a random unit vector has a standard deviation of about 1).
    initial_threshold : float
        In the same unit.
    threshold_rate : float
        How many times as far as a weight the logarithm of a threshold moves in a step. At 1 a training of 500
        steps could not raise a threshold by more than half, whatever the price.
    sparsity_warmup_fraction : float
        Share of the steps over which the price rises from 0.
    aux_coefficient, aux_k
        As for :class:`TopKConfig`.
    """

    architecture: Literal["jumprelu"] = "jumprelu"
    l0_coefficient: float = Field(default=1e-3, gt=0.0, le=1.0)
    bandwidth: float = Field(default=0.2, gt=0.0)
    initial_threshold: float = Field(default=0.2, gt=0.0)
    threshold_rate: float = Field(default=10.0, gt=0.0)
    sparsity_warmup_fraction: float = Field(default=0.1, ge=0.0, le=1.0)


class GatedConfig(L1Config):
    """The penalty decides which features are active, not how strongly; settings as :class:`ReluConfig`."""

    architecture: Literal["gated"] = "gated"


ADDED: dict[str, type[SaeConfig]] = {}
"""Configurations of architectures that do not come with the package (``registry.register_architecture``)."""


def _shipped_or_added(values: Any, shipped: Callable[[Any], SaeConfig]) -> SaeConfig:
    """Read values by the configuration that was added under their name, or by one of those shipped."""
    if isinstance(values, tuple(ADDED.values())):
        return values
    name = values.get("architecture") if isinstance(values, Mapping) else None
    if isinstance(name, str) and name in ADDED:
        return ADDED[name].model_validate(dict(values))
    return shipped(values)


AnySaeConfig = Annotated[
    ReluConfig
    | ReluTiedConfig
    | TopKConfig
    | BatchTopKConfig
    | MatryoshkaConfig
    | JumpReluConfig
    | GatedConfig,
    Field(discriminator="architecture"),
    WrapValidator(_shipped_or_added),
    SerializeAsAny(),  # pyright: ignore[reportCallIssue]
]
"""Any architecture's configuration, told apart by ``architecture``; for fields of parameter models."""

_ADAPTER: TypeAdapter[Any] = TypeAdapter(AnySaeConfig)


def parse_sae_config(values: Mapping[str, Any]) -> SaeConfig:
    """Read a configuration from plain values (a YAML mapping, a JSON object).

    Raises
    ------
    ConfigurationError
        Naming each field that is unknown, missing or out of bounds.
    """
    try:
        return _ADAPTER.validate_python(dict(values))
    except ValidationError as error:
        problems = "; ".join(
            f"{'.'.join(map(str, item['loc'])) or 'architecture'}: {item['msg']}" for item in error.errors()
        )
        raise ConfigurationError(
            f"The SAE configuration {dict(values)!r} is not valid: {problems}."
        ) from error
