"""Roles, wildcard patterns, grants: tables after protocol reference 1.8."""

from __future__ import annotations

import pytest

from simplepubsub.server.permissions import ALL_ROLES, JOIN_LEAVE, MAX_NAMES, SEND, Permissions, compile_pattern

ROLES = [
    # roles, group, may join, may send
    ((), "lobby", False, False),
    (ALL_ROLES, "lobby", True, True),
    (("webpubsub.joinLeaveGroup",), "lobby", True, False),
    (("webpubsub.sendToGroup",), "lobby", False, True),
    (("webpubsub.joinLeaveGroup.lobby",), "lobby", True, False),
    (("webpubsub.joinLeaveGroup.lobby",), "lobby2", False, False),
    (("webpubsub.joinLeaveGroup.lobby",), "Lobby", False, False),
    (("webpubsub.sendToGroup.a.b",), "a.b", False, True),
    (("webpubsub.sendToGroup.a.*",), "a.b", False, False),  # singular: a name, not a pattern
    (("webpubsub.sendToGroup.a.*",), "a.*", False, True),
    (("webpubsub.sendToGroups.a.*",), "a.b", False, True),
    (("webpubsub.joinLeaveGroups.floor.*.chat",), "floor.3.chat", True, False),
    (("webpubsub.joinLeaveGroups.floor.*.chat",), "floor.3.east.chat", False, False),
    (("webpubsub.joinLeaveGroup.",), "", False, False),
    (("webpubsub.joinLeaveGroups",), "lobby", False, False),  # a pattern role without a pattern
    (("webpubsub.unheardOf", "other", "sendToGroup", "Webpubsub.sendToGroup"), "lobby", False, False),
    (("webpubsub.sendToGroup.a", "webpubsub.sendToGroup.b", "webpubsub.joinLeaveGroup"), "b", True, True),
]


@pytest.mark.parametrize("roles, group, may_join, may_send", ROLES)
def test_roles(roles, group, may_join, may_send):
    permissions = Permissions(roles)
    assert permissions.can_join(group) is may_join
    assert permissions.can_send(group) is may_send
    assert permissions.check(JOIN_LEAVE, group) is may_join
    assert permissions.check(SEND, group) is may_send


PATTERNS = [
    # pattern, matches, does not
    ("lobby", ["lobby"], ["Lobby", "lobby ", "xlobby", "lobby\n"]),
    ("a?c", ["abc", "a*c", "a\nc"], ["ac", "a.c", "abbc"]),
    ("a*c", ["ac", "abc", "abbbc"], ["a.c", "ab.bc", "acx"]),
    ("a**c", ["ac", "a.c", "a.b.c", "a\n.c"], ["a.d"]),
    ("*", ["", "anything"], ["a.b"]),
    ("**", ["", "a.b.c"], []),
    ("a***", ["a", "a.b"], ["b"]),
    (r"a\*", ["a*"], ["ab", r"a\*"]),
    (r"a\?", ["a?"], ["ab"]),
    (r"a\\b", [r"a\b"], [r"a\\b"]),
    ("a.b", ["a.b"], ["axb"]),  # a full stop is nothing special
    ("(a|b)[c]+", ["(a|b)[c]+"], ["ac"]),
    ("x*x*x*x*x*", ["xxxxx", "xaxaxaxaxa"], ["xxxx"]),
]


@pytest.mark.parametrize("pattern, matching, others", PATTERNS)
def test_patterns(pattern, matching, others):
    compiled = compile_pattern(pattern)
    assert [group for group in matching if not compiled.fullmatch(group)] == []
    assert [group for group in others if compiled.fullmatch(group)] == []


@pytest.mark.parametrize("pattern", ["", "x" * 1025, "******", "*a*a*a*a*a*", "**a**a**", "a\\", "a\\b"])
def test_patterns_that_cannot_be(pattern):
    with pytest.raises(ValueError, match="pattern"):
        compile_pattern(pattern)


def test_too_many_rules_in_roles_are_refused():
    names = ["webpubsub.sendToGroup.g%d" % number for number in range(MAX_NAMES)]
    assert Permissions(names).can_send("g999")
    with pytest.raises(ValueError, match="at most"):
        Permissions(names + ["webpubsub.sendToGroup.more"])
    patterns = ["webpubsub.sendToGroups.g%d*" % number for number in range(11)]
    assert Permissions(patterns[:10]).can_send("g9x")
    with pytest.raises(ValueError, match="at most"):
        Permissions(patterns)


def test_grant_and_revoke_exact_names():
    permissions = Permissions()
    assert permissions.grant(SEND, "lobby")
    assert permissions.can_send("lobby") and not permissions.can_send("lob") and not permissions.can_join("lobby")
    assert permissions.revoke(SEND, "lobby")
    assert not permissions.can_send("lobby")


@pytest.mark.parametrize("role", ["webpubsub.sendToGroup", "webpubsub.sendToGroups.**", "webpubsub.sendToGroup.lobby"])
def test_revoking_a_name_beats_any_role_until_it_is_granted_again(role):
    permissions = Permissions([role])
    assert permissions.revoke(SEND, "lobby") and not permissions.can_send("lobby")
    assert permissions.grant(SEND, "lobby") and permissions.can_send("lobby")


def test_grants_and_revocations_are_bounded():
    permissions = Permissions()
    assert all(permissions.grant(SEND, "g%d" % number) for number in range(MAX_NAMES))
    assert not permissions.grant(SEND, "more") and not permissions.can_send("more")
    assert permissions.grant(SEND, "g0")  # there already
    assert permissions.revoke(SEND, "g0") and permissions.grant(SEND, "more")
    everywhere = Permissions(ALL_ROLES)
    assert all(everywhere.revoke(SEND, "g%d" % number) for number in range(MAX_NAMES))
    assert not everywhere.revoke(SEND, "more") and everywhere.can_send("more")
