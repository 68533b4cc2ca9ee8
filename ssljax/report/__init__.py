"""One page on what a run saw, how it learnt, and what its encoder is worth. It is given numbers and pictures only."""

from ssljax.report.page import Report, write_report

__all__ = ["Report", "write_report"]
