"""A further look at the samples, from rows of the ledger that it asks for."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping

from lightning.pytorch.callbacks import Callback

from shiftlens.attribution import Request
from shiftlens.evidence.analysis import Section
from shiftlens.prepare import Role, Rows


class RowView(Callback, ABC):
    """An analysis that needs rows beyond those of the run: other responses, or another way to explain them.

    It says which rows, in terms of those that are known; the run fetches them from the ledger or computes them,
    and asks again until nothing is missing.
    """

    @abstractmethod
    def requests(self, name: str, roles: Mapping[str, Role], rows: Rows) -> list[Request]:
        """The rows wanted of a role, as far as they can be named yet.

        Args:
            name: the role.
            roles: both roles.
            rows: what is known; every row asked for so far is in it.
        """

    @abstractmethod
    def section(self, roles: Mapping[str, Role], rows: Rows) -> Section:
        """Findings and tables, once every row asked for is known.

        Args:
            roles: both roles.
            rows: what is known.
        """
