"""Loops over the sections of an analysis: page, tables, loggers, terminal.

No module here names an analysis or computes a statistic.
"""

from shiftlens.report.log_analysis import log_analysis, scalars
from shiftlens.report.page import render_report, write_report
from shiftlens.report.sink import Entry, LoggerSink, Sink
from shiftlens.report.terminal import print_summary
from shiftlens.report.write_tables import write_tables

__all__ = [
    "Entry",
    "LoggerSink",
    "Sink",
    "log_analysis",
    "print_summary",
    "render_report",
    "scalars",
    "write_report",
    "write_tables",
]
