"""Cross-view geo-localization without ground truth, on Ray (method: arXiv 2403.12702)."""

__version__ = "0.1.0"
