"""Pages on what a run saw, how it learnt, and what its encoder is worth, and on several runs side by side. They are
given numbers and pictures only."""

from ssljax.report.comparison import Compared, write_comparison
from ssljax.report.page import Report, write_report

__all__ = ["Compared", "Report", "write_comparison", "write_report"]
