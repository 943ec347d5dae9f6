"""The root of the hierarchy, and how an error is made anew for each of its callers."""

from __future__ import annotations

from typing import Any, Dict, Tuple, Type, TypeVar

__all__ = ["SimplePubSubError", "fresh"]

_Error = TypeVar("_Error", bound=BaseException)


def fresh(error: _Error) -> _Error:
    """Return a new instance equal to ``error`` and chained to it.

    One recorded cause may be raised to many callers; sharing one instance would grow its traceback with every raise
    and keep all their frames alive.
    """
    copy = _rebuild(type(error), error.args, error.__dict__)
    copy.__cause__ = error
    return copy


def _rebuild(kind: Type[_Error], args: Tuple[Any, ...], attributes: Dict[str, Any]) -> _Error:
    error = kind.__new__(kind, *args)
    error.args = args
    error.__dict__.update(attributes)
    return error


class SimplePubSubError(Exception):
    """Base of every error of this package. Instances can be pickled, so they may leave a worker process."""

    def __reduce__(self) -> Any:
        # The default calls the class with ``args``, which fails where keywords are required.
        return _rebuild, (type(self), self.args, self.__dict__)
