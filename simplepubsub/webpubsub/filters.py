"""Put values into filter expressions without letting them change the expression.

Filters are written in a subset of OData; protocol reference 5.4. Pure functions, safe from any thread.
"""

from __future__ import annotations

import string
from typing import Any, List

from ..exceptions import InvalidArgument

__all__ = ["odata", "quote_value"]


def odata(template: str, *values: Any, **named: Any) -> str:
    """Return ``template`` with each ``{}``, ``{0}`` or ``{name}`` replaced by a value, quoted as OData wants it.

    ``odata("userId eq {} and {} in groups", user, group)``. str becomes ``'it''s'``, None ``null``, bool ``true`` or
    ``false``, int a number, and a list or tuple of those ``('a','b')``, as ``in`` wants it. Doubled braces stand for
    themselves. Raises InvalidArgument for other types, for a placeholder between quotes, and for values that are
    missing or left over.
    """
    if not isinstance(template, str):
        raise InvalidArgument("the template of a filter must be a str, not %s" % type(template).__name__)
    parts: List[str] = []
    used = set()
    automatic = 0
    try:
        pieces = list(string.Formatter().parse(template))
    except ValueError as error:
        raise InvalidArgument("the template of a filter has unbalanced braces: %s" % error) from None
    for literal, field, spec, conversion in pieces:
        parts.append(literal)
        if field is None:
            continue
        if spec or conversion:
            raise InvalidArgument("a placeholder in a filter takes no format: write {}, {0} or {name}")
        if "".join(parts).count("'") % 2:
            raise InvalidArgument("a placeholder stands between quotes: write userId eq {}, not userId eq '{}'")
        key: Any = int(field) if len(field) < 10 and field.isdigit() and field.isascii() else field
        if field == "":
            key, automatic = automatic, automatic + 1
        try:
            value = values[key] if isinstance(key, int) else named[key]
        except (IndexError, KeyError):
            raise InvalidArgument("the filter has no value for the placeholder {%s}" % field) from None
        used.add(key)
        parts.append(quote_value(value))
    unused = [str(key) for key in list(range(len(values))) + sorted(named) if key not in used]
    if unused:
        raise InvalidArgument("the filter does not use the value %s: add a placeholder" % ", ".join(unused))
    return "".join(parts)


def quote_value(value: Any) -> str:
    """Return a value as a filter writes it. Raises InvalidArgument for types that filters do not know."""
    if isinstance(value, (list, tuple)):
        if not value:
            raise InvalidArgument("an empty list cannot stand in a filter: leave the condition out")
        return "(%s)" % ",".join(_quote_one(item) for item in value)
    return _quote_one(value)


def _quote_one(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return "%d" % value
    if isinstance(value, str):
        return "'%s'" % str(value).replace("'", "''")
    raise InvalidArgument(
        "a value of type %s cannot stand in a filter: pass str, int, bool, None, or a list of them"
        % type(value).__name__
    )
