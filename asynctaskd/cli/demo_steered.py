"""How the demo's steering went: shares before and after the weights changed, and the receipts of the tree."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from rich.table import Table
from rich.text import Text

from asynctaskd.cli.demo_view import duration, late, percent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from asynctaskd.cli.demo_progress import Shares
    from asynctaskd.cli.demo_steering import WeightChange
    from asynctaskd.cli.demo_tree import TreeCancel


@dataclass(frozen=True, slots=True)
class Steered:
    """What the demo saw of it; the shares are those before and after the change."""

    before: Shares
    after: Shares
    change: WeightChange
    tree: TreeCancel

    def checks(self, workers: int) -> Iterator[tuple[str, bool]]:
        """What must be so, and whether it is, with so many workers."""
        before, after, change, tree = self.before, self.after, self.change, self.tree
        times = " and ".join(late(ack.seconds) for ack in change.acks)
        yield (
            f"each worker acknowledged version {change.version}, the new weights: after {times}",
            change.is_known_to(workers),
        )
        yield (
            f"the shares followed the weights, over {before.counted} claims before and {after.counted} after",
            before.follow and after.follow,
        )
        receipts, took = len(tree.receipt.tasks), duration(tree.seconds)
        yield (
            f"a tree was cancelled: {receipts} receipts, the last one complete after {took}",
            tree.is_answered_by(workers),
        )

    def groups_as_json(self, tasks: dict[str, int]) -> list[dict[str, Any]]:
        """A dict for each group, of which there are so many tasks; shares from 0 to 1."""
        return [
            {
                "name": name,
                "tasks": count,
                "before": _share_as_json(self.before, name),
                "after": _share_as_json(self.after, name),
            }
            for name, count in tasks.items()
        ]

    def table(self) -> Table:
        """The shares, wanted and had, before and after."""
        table = Table(
            title="Shares before the weights changed, and after",
            title_justify="left",
            title_style="bold",
            box=None,
            padding=(0, 1),
        )
        table.add_column("group", header_style="dim")
        for title in ("weight", "wanted", "had", "claims") * 2:
            table.add_column(title, justify="right", header_style="dim")
        for name in self.before.weights:
            table.add_row(Text(name), *_cells(self.before, name), *_cells(self.after, name))
        return table


def _cells(shares: Shares, name: str) -> tuple[str, str, str, str]:
    share, claims = percent(shares.had[name]), f"{shares.claims[name]:,}"
    return str(shares.weights[name]), percent(shares.wanted[name]), share, claims


def _share_as_json(shares: Shares, name: str) -> dict[str, Any]:
    return {
        "weight": shares.weights[name],
        "share_wanted": shares.wanted[name],
        "share_had": shares.had[name],
        "claims_while_all_waited": shares.claims[name],
    }
