"""What can go wrong in a reconciliation; the type of an exception says whether trying again may help, and when.

ReconcileError
 +-- TransientError      the cluster could not answer just now: try again soon, say nothing to the user
 |    +-- Conflict       somebody else has just written the same object
 |    +-- Ending         the namespace goes, and the model with it
 +-- TerminalError       it will go wrong again until somebody changes something: tell the user, look again now and then
      +-- InvalidSpec
      +-- UnknownProfile
      +-- KindMissing
      +-- ObjectConflict
      +-- RequestRejected
NotLeading               this process may not write any more; it ends
"""

from typing import ClassVar


class ReconcileError(Exception):
    """A reconciliation did not reach its end. ``reason`` is one word for conditions and metrics."""

    reason: ClassVar[str] = "ReconcileError"
    terminal: ClassVar[bool] = False


class TransientError(ReconcileError):
    """The cluster could not answer, or the object changed meanwhile. The next attempt may succeed as it is."""

    reason = "ClusterUnavailable"

    def __init__(self, message: str, retry_after: float = 0.0) -> None:
        """``retry_after``: seconds that the API server has asked to be left alone for."""
        super().__init__(message)
        self.retry_after = retry_after


class Conflict(TransientError):
    """Somebody else has just written the same object."""

    reason = "Conflict"


class Ending(TransientError):
    """The namespace is on its way out, so nothing is made in it any more; in a moment there is no model either."""

    reason = "NamespaceTerminating"


class TerminalError(ReconcileError):
    """The next attempt fails too unless the resource, or something else in the cluster, changes."""

    terminal = True


class InvalidSpec(TerminalError):
    """The resource says something that this operator does not understand."""

    reason = "InvalidSpec"


class UnknownProfile(TerminalError):
    """The resource names a hardware profile that the operator was not installed with."""

    reason = "UnknownProfile"


class KindMissing(TerminalError):
    """The resource asks for an object of a kind that the cluster does not know."""

    reason = "KindMissing"


class ObjectConflict(TerminalError):
    """An object that the model needs exists already and belongs to somebody else."""

    reason = "ObjectConflict"


class RequestRejected(TerminalError):
    """The API server refused a request for good: not permitted, or not valid."""

    reason = "RequestRejected"


class NotLeading(Exception):
    """Another replica may be acting by now, so this process must not write."""
