"""Sections of retrieval, and of a run's resources."""

from typing import Literal

from pydantic import model_validator

from cvgl_ray.config.section import Count, CountOrZero, Section, Seed


class Retrieval(Section):
    """How embeddings are compared at retrieval; the frozen features always by their cosine."""

    scores: Literal["cosine", "csls"] = "csls"
    """csls corrects the cosine for hubs among the references"""
    neighbours: Count = 10
    """of CSLS's scale"""
    bank: Literal["training", "queries"] = "training"
    """where csls looks for hubs: in a sample of the training images, or in all queries asked at once"""


class Run(Section):
    """Resources and reproducibility."""

    workers: Count = 1
    """Ray Train workers"""
    min_workers: CountOrZero = 0
    """go on with so few where workers are lost for good; 0: wait for all"""
    gpu: bool = False
    """one GPU per worker, and per backbone actor"""
    seed: Seed = 0
    """of initial weights and batches"""
    agreement: bool = True
    """also train two models of half the features, whose agreement judges each round"""
    max_failures: CountOrZero = 3
    """worker failures survived before the run gives up"""

    @model_validator(mode="after")
    def _fewest_are_few(self) -> "Run":
        if self.min_workers > self.workers:
            raise ValueError(f"min_workers is {self.min_workers}, more than workers, which is {self.workers}")
        return self
