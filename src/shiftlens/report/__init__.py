"""From findings to what people look at: tables, HTML, loggers, terminal. No statistics here."""

from shiftlens.report.html import render_report, write_report
from shiftlens.report.log import log_analysis, scalars
from shiftlens.report.tables import write_tables
from shiftlens.report.terminal import print_summary

__all__ = ["log_analysis", "print_summary", "render_report", "scalars", "write_report", "write_tables"]
