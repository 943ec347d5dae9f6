"""Names of a package whose modules are loaded when somebody asks for one of them (PEP 562)."""

from __future__ import annotations

import importlib
import sys
from typing import Any, Callable, Dict, List, Mapping, Sequence, Tuple

__all__ = ["lazy_names"]


def lazy_names(
    package: str, homes: Mapping[str, Sequence[str]]
) -> Tuple[Callable[[str], Any], Callable[[], List[str]]]:
    """Return ``__getattr__`` and ``__dir__`` for ``package``: ``homes`` maps relative modules to names in them.

    A name is looked up once, then it is an attribute like any other. Safe from any thread.
    """
    where: Dict[str, str] = {name: module for module, names in homes.items() for name in names}
    namespace = vars(sys.modules[package])

    def get(name: str) -> Any:
        module = where.get(name)
        if module is None:
            raise AttributeError("module %r has no attribute %r" % (package, name))
        value = namespace[name] = getattr(importlib.import_module(module, package), name)
        return value

    def names() -> List[str]:
        return sorted({*namespace, *where})

    return get, names
