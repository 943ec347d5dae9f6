"""Who may join and publish where: the roles of a connection, wildcard patterns, grants and revocations.

Role strings (protocol reference 1.8): ``webpubsub.joinLeaveGroup`` and ``webpubsub.sendToGroup`` give a right for every
group, with ``.<group>`` appended for exactly that one; ``webpubsub.joinLeaveGroups.<pattern>`` and
``webpubsub.sendToGroups.<pattern>`` (plural) for the groups that match. Other strings give no right and are ignored.
"""

from __future__ import annotations

from typing import Dict, Iterable, List, Set

__all__ = ["ALL_ROLES", "JOIN_LEAVE", "MAX_NAMES", "Permissions", "SEND", "compile_pattern"]

#: The two rights, by the names that REST uses for them.
JOIN_LEAVE = "joinLeaveGroup"
SEND = "sendToGroup"

#: Roles that allow everything.
ALL_ROLES = ("webpubsub.joinLeaveGroup", "webpubsub.sendToGroup")

_PREFIX = "webpubsub."
#: Per right: exact names, patterns, and characters of one pattern (the emulator's limits).
MAX_NAMES = 1000
MAX_PATTERNS = 10
MAX_PATTERN_LENGTH = 1024
MAX_ASTERISKS = 5


class GroupPattern:
    """A compiled group pattern: an automaton, all of whose states are bits of one integer.

    It takes time by the length of the name and no more, whatever the pattern; a regular expression with five asterisks
    would take the fifth power of it, on the server's loop. Immutable.
    """

    __slots__ = ("_anything", "_end", "_literals", "_no_stop", "_runs", "_single")

    def __init__(self, tokens: List[str]) -> None:
        self._literals: Dict[str, int] = {}  # the states that a character leads on from
        self._single = 0  # the states of "?"
        self._no_stop = self._anything = 0  # the states of "*" and "**"
        for state, token in enumerate(tokens):
            bit = 1 << state
            if token == "?":
                self._single |= bit
            elif token == "*":
                self._no_stop |= bit
            elif token == "**":
                self._anything |= bit
            else:
                self._literals[token[-1]] = self._literals.get(token[-1], 0) | bit
        self._runs = self._no_stop | self._anything
        self._end = 1 << len(tokens)

    def fullmatch(self, group: str) -> bool:
        """Return whether the whole name matches."""
        states = self._skip(1)
        for char in group:
            onward, stay = self._literals.get(char, 0), self._anything
            if char != ".":
                onward |= self._single
                stay |= self._no_stop
            states = self._skip((states & onward) << 1 | states & stay)
            if not states:
                return False
        return bool(states & self._end)

    def _skip(self, states: int) -> int:
        """Return the states with those behind runs, which may be empty."""
        while True:
            more = states | (states & self._runs) << 1
            if more == states:
                return states
            states = more


def compile_pattern(pattern: str) -> GroupPattern:
    """Return the compiled form of a group pattern, to be used with ``fullmatch``.

    ``?`` is one character but not ``.``; ``*`` any run without ``.``; ``**`` any run; a backslash takes the special
    meaning from ``\\ * ?``. Case matters. Raises ValueError: empty, too long, over five asterisks, a stray backslash.
    """
    if not 1 <= len(pattern) <= MAX_PATTERN_LENGTH:
        raise ValueError("a group pattern has 1 to %d characters, this one %d" % (MAX_PATTERN_LENGTH, len(pattern)))
    tokens: List[str] = []  # "?", "*", "**", or a character behind a backslash
    asterisks = position = 0
    while position < len(pattern):
        char = pattern[position]
        step = 1
        if char == "\\":
            escaped = pattern[position + 1 : position + 2]
            if not escaped or escaped not in "\\*?":
                raise ValueError("a backslash in a group pattern must stand before \\, * or ?")
            tokens.append("\\" + escaped)
            step = 2
        elif char == "*":
            step = 2 if pattern.startswith("**", position) else 1
            asterisks += step
            tokens.append(char * step)
        else:
            tokens.append(char if char == "?" else "\\" + char)
        position += step
    if asterisks > MAX_ASTERISKS:
        raise ValueError("a group pattern has at most %d asterisks, this one %d" % (MAX_ASTERISKS, asterisks))
    return GroupPattern(tokens)


class _Right:
    """One right of one connection."""

    __slots__ = ("everywhere", "names", "patterns", "revoked")

    def __init__(self) -> None:
        self.everywhere = False
        self.names: Set[str] = set()
        self.patterns: List[GroupPattern] = []
        self.revoked: Set[str] = set()

    def allows(self, group: str) -> bool:
        if self.revoked and group in self.revoked:
            return False
        if self.everywhere or group in self.names:
            return True
        return any(pattern.fullmatch(group) for pattern in self.patterns)


class Permissions:
    """The rights of one connection. Pure; belongs to the server's loop.

    Raises ValueError for roles that cannot be: a bad pattern, or too many names or patterns.
    """

    __slots__ = ("_rights",)

    def __init__(self, roles: Iterable[str] = ()) -> None:
        self._rights: Dict[str, _Right] = {JOIN_LEAVE: _Right(), SEND: _Right()}
        for role in roles:
            if not role.startswith(_PREFIX):
                continue
            kind, dot, target = role[len(_PREFIX) :].partition(".")
            if kind in self._rights:
                right = self._rights[kind]
                if not dot:
                    right.everywhere = True
                elif target:
                    right.names.add(target)
            elif kind in (JOIN_LEAVE + "s", SEND + "s") and dot:
                right = self._rights[kind[:-1]]
                right.patterns.append(compile_pattern(target))
            else:
                continue
            if len(right.names) > MAX_NAMES or len(right.patterns) > MAX_PATTERNS:
                raise ValueError("at most %d names and %d patterns per right" % (MAX_NAMES, MAX_PATTERNS))

    def can_join(self, group: str) -> bool:
        """Return whether the connection may join and leave ``group``."""
        return self._rights[JOIN_LEAVE].allows(group)

    def can_send(self, group: str) -> bool:
        """Return whether the connection may publish to ``group``."""
        return self._rights[SEND].allows(group)

    def check(self, permission: str, group: str) -> bool:
        """Return whether ``permission`` ("joinLeaveGroup" or "sendToGroup") holds for ``group``."""
        return self._rights[permission].allows(group)

    def grant(self, permission: str, group: str) -> bool:
        """Give the right for exactly ``group``; return False, changing nothing, at the limit of 1,000 names."""
        right = self._rights[permission]
        if group not in right.names and len(right.names) >= MAX_NAMES:
            return False
        right.revoked.discard(group)
        right.names.add(group)
        return True

    def revoke(self, permission: str, group: str) -> bool:
        """Take the right for exactly ``group``, also where a wider role gives it, until it is granted again.

        Return False, changing nothing, at the limit of 1,000 names.
        """
        right = self._rights[permission]
        if group not in right.revoked and len(right.revoked) >= MAX_NAMES:
            return False
        right.names.discard(group)
        right.revoked.add(group)
        return True
