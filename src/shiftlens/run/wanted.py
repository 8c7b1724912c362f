"""Lists the samples that a run explains, by the analysis that wants them."""

from __future__ import annotations

from collections.abc import Sequence

from shiftlens.attribution import Request
from shiftlens.attribution.foils import Asked
from shiftlens.attribution.role import Rows, by_method
from shiftlens.callbacks import RowView
from shiftlens.models.roles import ROLES
from shiftlens.run.prepare import Options


def wanted_by_analysis(
    name: str, asked: Asked, rows: Rows, views: Sequence[RowView], options: Options
) -> dict[str, list[Request]]:
    """List the requests that each analysis makes of a role, as far as they can be named yet.

    Args:
        name: Name of the role.
        asked: Requests of both roles.
        rows: The rows that are known; a response can be explained only after it exists.
        views: Analyses that need further rows.
        options: Options of the run: which responses are explained, by which methods.

    Returns:
        Name of the analysis -> its requests; several analyses may want the same one.
    """
    writers = {"density": options.responses if options.responses in ROLES else name}
    if options.responses == "both":
        (writers["crossed"],) = set(ROLES) - {name}
    wanted: dict[str, list[Request]] = {}
    for analysis, writer in writers.items():
        first = asked.explained(rows, name, writer)
        others = (by_method(first, asked.roles[name], rows[name], method) for method in options.methods[1:])
        wanted[analysis] = [*first, *(request for requests in others for request in requests)]
    wanted["density"] += asked.first(rows, name)
    for view in views:
        wanted.setdefault(type(view).__name__, []).extend(view.requests(name, asked.roles, rows))
    return wanted
