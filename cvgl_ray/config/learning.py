"""Sections of the rounds: the adapter, the E-step, the M-step, its losses; and all that learning takes."""

from dataclasses import dataclass
from typing import Literal

from pydantic import Field, model_validator

from cvgl_ray.config.section import Count, CountOrZero, Fraction, NotNegative, Positive, Section


class Adapter(Section):
    """The map from features to embeddings, shared by both views."""

    kind: Literal["attenuation", "linear"] = "attenuation"
    """fitted in closed form, or learned by gradient"""
    norm: Literal["none", "view", "batch"] = "view"
    """per-view centring, or the reference implementation's shared BatchNorm (linear only)"""
    siblings: NotNegative = 0.5
    """attenuation: weight of pairs within a view that has several images per place"""
    rank: Count = 512
    """attenuation: how many directions at most"""
    shrinkage: Fraction = 0.5
    """attenuation: 1 leaves the features as they are"""
    width: CountOrZero = 0
    """linear: embedding dimension; 0: the feature's own"""
    init: Literal["identity", "random"] = "identity"
    """linear: of the encoder's matrix"""
    residual: bool = False
    """linear: add the feature to its code"""

    @model_validator(mode="after")
    def _kind_fits(self) -> "Adapter":
        if self.kind == "attenuation":  # values count, not who set them: a resolved configuration sets all
            fields = type(self).model_fields
            of_linear = ("width", "init", "residual")
            wrong = [key for key in of_linear if getattr(self, key) != fields[key].default]
            wrong += ['norm "batch"'] if self.norm == "batch" else []
            if wrong:
                raise ValueError(f'{", ".join(wrong)} needs kind = "linear", found kind "attenuation"')
        if self.residual and self.width:
            raise ValueError(
                f"residual needs width = 0 (the feature's own dimension), found width {self.width}"
            )
        return self


class EStep(Section):
    """How pseudo-labels are made."""

    # Chosen on several feature sets at once (experiments/LOG.md); relative, so that no cosine scale matters.
    neighbourhood: NotNegative = 0.3
    """weight of the neighbours' matches; 0: rows are matched one by one"""
    rows: CountOrZero = 0
    """0: all rows; n: a random batch of n rows of each view per round"""
    scores: Literal["cosine", "csls"] = "csls"
    """csls corrects the cosine for hubs"""
    neighbours: Count = 5
    """of CSLS's local scale"""
    match: Literal["argmax", "mutual"] = "mutual"
    """whether both sides must agree"""
    threshold: float = Field(default=-1.0, ge=-1.0, le=1.0)
    """a pair's cosine must exceed it"""
    first_share: Fraction = 0.7
    """of the matched queries, the surest, that count in round 1; it rises evenly to all in the last"""
    index: str = "auto"
    """Flat: exact; a faiss string, such as "IVF2048,Flat;nprobe=32"; auto: exact where minutes do"""

    @model_validator(mode="after")
    def _neighbourhood_fits(self) -> "EStep":
        if self.neighbourhood and self.rows:
            raise ValueError("neighbourhood needs all rows: rows = 0, or neighbourhood = 0")
        return self


class MStep(Section):
    """How the adapter is updated; all but `rounds` is for adapter.kind = "linear"."""

    rounds: Count = 3
    """E-steps, each with its M-step"""
    steps_per_round: Count = 10
    """optimiser updates per round"""
    batch_size: int = Field(default=512, ge=2)
    """pairs per step, over all workers"""
    optimizer: Literal["adamw", "adam"] = "adamw"
    """weight decay 0.01, or none"""
    learning_rate: Positive = 2e-4
    """at its peak; half a cosine follows the warm-up"""
    warmup_steps: CountOrZero = 1
    """from 0 up to the learning rate"""
    clip_value: Positive = 100.0
    """each gradient entry is clipped to plus or minus this"""
    temperature: Positive = 1 / 14.28
    """InfoNCE's at the start"""
    learn_temperature: bool = True
    """or keep it as it starts"""
    label_smoothing: float = Field(default=0.1, ge=0.0, lt=1.0)
    """of InfoNCE's targets"""


class Loss(Section):
    """Weights of the loss terms, for adapter.kind = "linear"; InfoNCE has weight 1."""

    reconstruction: Literal["l1", "l2"] = "l2"
    """distance to the frozen feature"""
    reconstruction_weight: NotNegative = 1.0
    """of the reconstruction"""
    orthogonality_weight: NotNegative = 0.0
    """of the encoder's distance from an isometry"""


@dataclass(frozen=True)
class Learning:
    """What a training's rounds depend on besides the features; `Config.learning` gives it.

    seed: of initial weights and batches; gpu: whether they are done on this machine's; agreement: whether
    models of half the features judge them.
    """

    adapter: Adapter
    estep: EStep
    mstep: MStep
    loss: Loss
    seed: int
    gpu: bool
    agreement: bool

    @property
    def device(self) -> str:
        """Of a training in one process, as torch names it."""
        return "cuda" if self.gpu else "cpu"
