"""Every error that users of the product see: a sentence, a stable code for programs, an exit code for shells."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of the command line; a signal adds its number to 128."""

    OK = 0
    INTERNAL = 1
    USAGE = 2
    SOME_FAILED = 3
    ALL_FAILED = 4
    MODEL = 5
    DEVICE = 6


class I2SBError(Exception):
    """Base of all errors here. `code` is stable, for programs; `exit_code` is what the command line returns."""

    code = "internal"
    exit_code = Exit.INTERNAL


class UsageError(I2SBError, ValueError):
    """A value that the caller gave does not fit."""

    code = "usage"
    exit_code = Exit.USAGE


class ImageError(I2SBError):
    """An image cannot be read; the kinds are below."""

    code = "image"
    exit_code = Exit.ALL_FAILED


class ImageMissingError(ImageError):
    """There is no such file, it is not a file, or it may not be read."""

    code = "image_missing"


class ImageFormatError(ImageError):
    """The file is not of a kind that can be restored: another format, animated, 16 bits a channel; or misnamed."""

    code = "image_format"


class ImageBrokenError(ImageError):
    """The file is damaged or cut short."""

    code = "image_broken"


class ImageTooLargeError(ImageError):
    """The image has more pixels than allowed."""

    code = "image_too_large"


class OutputError(I2SBError):
    """A result cannot be written."""

    code = "output"
    exit_code = Exit.ALL_FAILED


class NonFiniteError(I2SBError):
    """The network gave NaN or infinity, so there is no picture."""

    code = "nonfinite"
    exit_code = Exit.ALL_FAILED


class ModelFileError(I2SBError):
    """A model is missing, broken or not a bridge."""

    code = "model"
    exit_code = Exit.MODEL


class DeviceError(I2SBError):
    """No engine can run the network here, or the one chosen failed."""

    code = "device"
    exit_code = Exit.DEVICE


class OutOfMemoryError(DeviceError):
    """There is not enough memory."""

    code = "memory"


class CancelledError(I2SBError):
    """The run was stopped before its end, by a signal or by an observer."""

    code = "cancelled"


def ours(error: Exception) -> I2SBError:
    """Return an error of any kind as one of this module: what is not known here is a fault of i2sb-rt."""
    if isinstance(error, I2SBError):
        return error
    if isinstance(error, MemoryError):
        return OutOfMemoryError("there is not enough memory")
    return I2SBError(f"internal error: {type(error).__name__}: {error}")


def alone(error: I2SBError) -> I2SBError:
    """Return an error without the frames that it came through, which hold files and pictures."""
    error.__cause__ = error.__context__ = None
    return error.with_traceback(None)


@contextmanager
def from_core() -> Iterator[None]:
    """Raise the errors of the native core as errors of this module."""
    from i2sb_rt import _core

    try:
        yield
    except I2SBError:
        raise
    except ValueError as error:
        raise UsageError(str(error)) from error
    except _core.ModelError as error:
        raise ModelFileError(str(error)) from error
    except _core.EngineError as error:
        raise DeviceError(str(error)) from error
    except _core.NonFiniteError as error:
        raise NonFiniteError(str(error)) from error
    except _core.CancelledError as error:
        raise CancelledError(str(error)) from error
    except _core.CoreError as error:
        raise I2SBError(str(error)) from error
    except MemoryError as error:
        raise OutOfMemoryError(str(error) or "there is not enough memory") from error
