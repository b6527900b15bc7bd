"""What can go wrong when a model is fetched; the type says what another attempt is worth.

FetchError
 +-- Transient           may be over soon: tried again, after a time that grows
 |    +-- Unreachable    no connection, or one that broke
 |    +-- ServerError    5xx, 408
 |    +-- RateLimited    429; says for how long
 |    +-- Stalled        nothing came for too long
 +-- Permanent           stays so until somebody acts: told at once
      +-- Unauthorized, Forbidden, NotFound, Rejected (any other answer)
      +-- DigestMismatch, SizeMismatch
      +-- DiskFull, CacheFull, CacheUnusable
      +-- UnsafeRedirect, BadSource, NoModelFound
"""

from typing import ClassVar


class FetchError(Exception):
    """A fetch did not reach its end. The message is one line for people, and has no secret in it."""

    reason: ClassVar[str] = "FetchFailed"
    """One word for conditions."""


class Transient(FetchError):
    """Worth another attempt, ``retry_after`` seconds from now at the earliest."""

    def __init__(self, message: str, retry_after: float | None = None) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class Unreachable(Transient):
    reason = "SourceUnreachable"


class ServerError(Transient):
    reason = "SourceUnavailable"


class RateLimited(Transient):
    reason = "RateLimited"


class Stalled(Transient):
    reason = "Stalled"


class Permanent(FetchError):
    """Not worth another attempt as it is."""


class Unauthorized(Permanent):
    reason = "Unauthorized"


class Forbidden(Permanent):
    reason = "Forbidden"


class NotFound(Permanent):
    reason = "NotFound"


class Rejected(Permanent):
    reason = "Rejected"


class DigestMismatch(Permanent):
    reason = "DigestMismatch"


class SizeMismatch(Permanent):
    reason = "SizeMismatch"


class DiskFull(Permanent):
    reason = "DiskFull"


class CacheFull(Permanent):
    reason = "CacheFull"


class CacheUnusable(Permanent):
    reason = "CacheUnusable"


class UnsafeRedirect(Permanent):
    reason = "UnsafeRedirect"


class BadSource(Permanent):
    reason = "BadSource"


class NoModelFound(Permanent):
    reason = "NoModel"
