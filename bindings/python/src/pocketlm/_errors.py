"""What goes wrong, as exceptions that Python knows."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from .pocketlm_ffi import InternalError as _Broken
from .pocketlm_ffi import PocketlmError


class Error(Exception):
    """A failure, in a sentence: what, where, the cause, and what would work."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason

    def __str__(self) -> str:
        return self.reason


class IoError(Error, OSError):
    """The operating system refused a file or a stream."""


class NotFound(Error, FileNotFoundError):
    """No model or session at the given place."""


class BadFile(Error, ValueError):
    """A file contradicts its format or itself."""


class Unsupported(Error):
    """The file is sound, but asks for something that is not there."""


class InvalidArgument(Error, ValueError):
    """An argument makes no sense."""


class ContextOverflow(Error, ValueError):
    """More tokens than the context holds."""


class OutOfMemory(Error, MemoryError):
    """Memory of the host or of the device ran out, or would."""


class DeviceUnavailable(Error):
    """No device fits the request."""


class DeviceLost(Error):
    """The device went away."""


class WrongNumbers(Error):
    """A kernel computed something that it must not."""


class TemplateError(Error):
    """A chat template refused the conversation."""


class SessionBusy(Error):
    """The session is already generating."""


class Cancelled(Error):
    """The caller stopped the work."""


class Suspended(Error):
    """The engine stands still until it is resumed."""


class CallbackFailed(Error):
    """The app's own callback failed."""


class InternalError(Error):
    """A bug in the library."""


_KINDS = [
    (PocketlmError.Io, IoError),
    (PocketlmError.NotFound, NotFound),
    (PocketlmError.BadFile, BadFile),
    (PocketlmError.Unsupported, Unsupported),
    (PocketlmError.InvalidArgument, InvalidArgument),
    (PocketlmError.ContextOverflow, ContextOverflow),
    (PocketlmError.OutOfMemory, OutOfMemory),
    (PocketlmError.DeviceUnavailable, DeviceUnavailable),
    (PocketlmError.DeviceLost, DeviceLost),
    (PocketlmError.WrongNumbers, WrongNumbers),
    (PocketlmError.Template, TemplateError),
    (PocketlmError.SessionBusy, SessionBusy),
    (PocketlmError.Cancelled, Cancelled),
    (PocketlmError.Suspended, Suspended),
    (PocketlmError.Callback, CallbackFailed),
    (PocketlmError.Internal, InternalError),
]


@contextmanager
def translated() -> Iterator[None]:
    """What the library raises, as it is called here."""
    try:
        yield
    except PocketlmError as error:
        kind = next((kind for raised, kind in _KINDS if isinstance(error, raised)), InternalError)
        raise kind(str(error)) from None
    except _Broken as error:
        raise InternalError(str(error)) from None
    except Error:
        raise
    except (OverflowError, ValueError) as error:
        # Numbers that do not fit, texts that are no UTF-8: refused before they reach the library.
        raise InvalidArgument(str(error)) from error
