"""Questions and answers of the API; OpenAPI's description is made from them."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

Name = Annotated[str, Field(max_length=200)]
Position = Annotated[int, Field(ge=0, le=1_000_000)]
Rule = Literal["marked", "find", "none"]


class Question(BaseModel):
    """What is sent; a field that is not known is an error."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)


class SequenceQuestion(Question):
    """A sequence and its start codon."""

    sequence: str = Field(
        min_length=1, max_length=200_000, description="ACGTUN, and | before the start codon"
    )
    name: Name = "sequence"
    cds_start: Position | None = Field(None, description="first nucleotide of the start codon, from 0")
    start: Rule = Field("marked", description="where the start codon is, when cds_start is not given")


class PasteQuestion(Question):
    """One sequence, or FASTA."""

    text: str = Field(max_length=400_000)
    start: Rule = "find"


class ReadQuestion(Question):
    """A sequence, and what to draw under it."""

    sequence: SequenceQuestion
    features: list[Name] = Field(default=[], max_length=512)
    strongest: int = Field(12, ge=0, le=512, description="draw also so many features that are strong here")


class EditQuestion(Question):
    """A sequence before and after an edit."""

    before: SequenceQuestion
    after: SequenceQuestion
    most: int = Field(12, ge=0, le=512, description="features to list, the most moved first")


class SaturationQuestion(Question):
    """All single substitutions between two positions."""

    sequence: SequenceQuestion
    feature: Name | None = None
    first: Position = 0
    last: Position | None = Field(None, description="before which position to stop; the end by default")


class InterventionQuestion(Question):
    """A feature, and what it is set to."""

    sequence: SequenceQuestion
    feature: Name
    to: Literal["zero", "value", "sequence"] = "zero"
    value: float = Field(0.0, ge=0, le=1e9, description="the activation, for to = value")
    source: SequenceQuestion | None = Field(None, description="whose activations, for to = sequence")
    first: Position = 0
    last: Position | None = None
    seed: int = Field(0, ge=0, le=2**31, description="of the random directions")


class ValuesQuestion(Question):
    """Sequences whose read-outs are wanted, and nothing else of them."""

    sequences: list[SequenceQuestion] = Field(min_length=1, max_length=1000)


class ContrastQuestion(Question):
    """Two sets of sequences."""

    here: list[SequenceQuestion] = Field(max_length=1000)
    there: list[SequenceQuestion] = Field(max_length=1000)
    most: int = Field(50, ge=1, le=5000, description="features to list, the most certain first")


class Answer(BaseModel):
    """What comes back; a number that is not known is null."""

    model_config = ConfigDict(allow_inf_nan=False)


class ErrorAnswer(Answer):
    """What is wrong, where, and what to do."""

    error: str


class RecordAnswer(Answer):
    """A sequence as it was read."""

    name: str
    sequence: str
    cds_start: int | None
    cds_end: int | None
    start_from: Literal["told", "marked", "found", "unknown"]


class OwnRecordsAnswer(Answer):
    """Names of records of the run, the first ones that hold the text."""

    names: list[str]


class OwnRecordAnswer(Answer):
    """A record of the run, and what was measured of it."""

    record: RecordAnswer
    measured: dict[str, float]


class ValuesAnswer(Answer):
    """What every read-out says of each sequence, in their order."""

    values: dict[str, list[float]]


class PasteAnswer(Answer):
    """The sequences that were pasted."""

    records: list[RecordAnswer]


class ReadOutAnswer(Answer):
    """What a read-out says: its 95 % prediction interval, and the range of its predictions on the run."""

    name: str
    value: float
    unit: Literal["value", "log odds"]
    low: float | None
    high: float | None
    tried_low: float | None
    tried_high: float | None


class FitAnswer(Answer):
    """Share of nucleotides outside what the autoencoder was trained on, and its error beside the limit of those."""

    site: str
    outside: float | None
    error: float
    limit: float | None


class TrackAnswer(Answer):
    """A feature on each nucleotide; ``usual`` is its largest activation on sequences of the training."""

    name: str
    site: str
    feature: int
    usual: float
    values: list[float]


class ReadAnswer(Answer):
    """A sequence, what is read out of it, how far it lies from the training, and its tracks."""

    record: RecordAnswer
    read_outs: list[ReadOutAnswer]
    fit: list[FitAnswer]
    usual_lengths: tuple[int, int]
    concepts: dict[str, list[tuple[int, int]]]
    tracks: list[TrackAnswer]


class FoldAnswer(Answer):
    """Base pairs, and the free energy in kcal/mol."""

    pairs: list[tuple[int, int]]
    energy: float


class ChangeAnswer(Answer):
    """A read-out before and after."""

    name: str
    before: float
    after: float


class MovedAnswer(Answer):
    """A feature before and after an edit; ``largest`` in shares of its usual largest activation."""

    name: str
    usual: float
    change: float
    largest: float
    before: list[float]
    after: list[float]


class EditAnswer(Answer):
    """What an edit does; ``aligned`` has the positions that stand for each other."""

    before: RecordAnswer
    after: RecordAnswer
    aligned: list[tuple[int, int]]
    read_outs: list[ChangeAnswer]
    moved: list[MovedAnswer]


class SaturationAnswer(Answer):
    """Effect of each substitution: a row a letter (A, C, G, U), a column a position from ``first`` on."""

    record: RecordAnswer
    first: int
    letters: list[str]
    read_outs: dict[str, list[list[float]]]
    feature: list[list[float]] | None


class NullAnswer(Answer):
    """Effects of changes of equal length in other directions, and the p-value of the one beside them."""

    effects: list[float]
    p_value: float
    features: list[str]


class EffectAnswer(Answer):
    """A read-out before and after an intervention, beside its nulls; they are null where nothing changes."""

    name: str
    before: float
    after: float
    random: NullAnswer | None
    alike: NullAnswer | None


class MoveAnswer(Answer):
    """Change of a later feature's mean, in shares of its usual largest activation."""

    name: str
    change: float


class InterventionAnswer(Answer):
    """What setting a feature does."""

    record: RecordAnswer
    feature: str
    effects: list[EffectAnswer]
    before: list[float]
    after: list[float]
    magnitude: float
    moved: list[MoveAnswer]


class ContrastRow(Answer):
    """A feature between two sets; see :class:`helix_sae.explorer.contrast.Contrast`."""

    name: str
    site: str
    feature: int
    mean_here: float
    mean_there: float
    share_here: float
    share_there: float
    effect: float
    p_value: float | None
    q_value: float | None


class ContrastAnswer(Answer):
    """The most certain features, how many were tested, and how."""

    rows: list[ContrastRow]
    n_tested: int
    n_here: int
    n_there: int
    exact: bool


class FeatureAnswer(Answer):
    """What is known of a feature; what nothing is known of is null. ``card``: the atlas of the run has it."""

    name: str
    card: bool
    site: str
    feature: int
    density: float
    usual: float
    stability: float | None
    certified: str | None
    best_concept: str | None
    best_property: str | None
    effect: float | None


class FeaturesAnswer(Answer):
    """Every feature."""

    features: list[FeatureAnswer]


class AboutAnswer(Answer):
    """What stands behind this server, and its limits."""

    title: str
    version: str
    model: str
    codon_markers: str
    sites: list[str]
    n_features: int
    read_outs: list[str]
    n_reference: int
    n_records: int
    folds: bool
    atlas: bool
    report: bool
    limits: dict[str, float]
