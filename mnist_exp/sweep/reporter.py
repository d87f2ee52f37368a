"""What a sweep tells while it runs: its page, and MLflow, through the publisher."""

from pathlib import Path
from typing import final

from mnist_exp.config import Tracking
from mnist_exp.console.terminal import offer
from mnist_exp.disk.layout import SweepFolder
from mnist_exp.disk.plan import Plan
from mnist_exp.errors import SweepError
from mnist_exp.sweep.live import Renewer
from mnist_exp.tracking.publisher import Publisher


@final
class SweepReporter:
    """Reports the sweep in *folder* and all its runs.

    Args:
        live: Reports from the beginning, as the jobs of our launchers do not report themselves. Other jobs do; then
            only the sweep is left to report, at its end.
        page: Whether its page is there from the beginning.
    """

    def __init__(self, plan: Plan, folder: Path, tracking: Tracking, live: bool, page: bool = False) -> None:
        self.plan, self.folder, self.tracking, self.live = plan, folder, tracking, live
        self.renewer = Renewer(folder) if page else None
        self.publisher: Publisher | None = None
        self.closed = False

    def __enter__(self) -> "SweepReporter":
        if self.tracking.enabled and self.live:
            self._begin()
        if self.renewer:
            self.renewer.begin()
        return self

    def follow(self, folder: Path) -> None:
        """A run in *folder* has joined the sweep."""
        if self.publisher:
            self.publisher.follow(folder)

    def finish(self) -> None:
        """All runs have ended: what is not reported yet is reported from now on, and the page is left to be written."""
        if self.renewer:
            self.renewer.end()
        if self.tracking.enabled:
            (self.publisher or self._begin()).finish()

    def wait(self, kind: type[BaseException] | None = None) -> None:
        """Returns when all is reported, or the wait for it is over; see `Publisher.close`."""
        if self.tracking.enabled and not self.closed:
            self.closed = True
            (self.publisher or self._begin()).close(kind)

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        if self.renewer:
            self.renewer.end()
        self.wait(kind)
        if self.publisher and kind in (None, SweepError):
            offer(*self.publisher.where_to_look(self.folder))

    def _begin(self) -> Publisher:
        self.publisher = Publisher(self.tracking)
        for number in range(len(self.plan.points)):
            self.publisher.follow(SweepFolder(self.folder).run(number).path)
        self.publisher.sweep(self.folder)
        return self.publisher
