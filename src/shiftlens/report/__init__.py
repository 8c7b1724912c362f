"""From findings to what people look at: tables, HTML, loggers, terminal. No statistics here."""

from shiftlens.report.log_analysis import log_analysis, scalars
from shiftlens.report.page import render_report, write_report
from shiftlens.report.terminal import print_summary
from shiftlens.report.write_tables import write_tables

__all__ = ["log_analysis", "print_summary", "render_report", "scalars", "write_report", "write_tables"]
