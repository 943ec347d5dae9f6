"""P7 for streams: a forked child that inherits their handles gets a clear error from each call, and hangs nowhere."""

from __future__ import annotations

from tests.helpers import ScriptedPeer, run_python
from tests.test_p1_hang_matrix import opens_streams
from tests.test_p7_legacy import FORK, needs_fork


@needs_fork
def test_a_child_is_told_by_every_handle() -> None:
    with ScriptedPeer(opens_streams) as peer:
        result = run_python(
            FORK
            + """
client = WebPubSubClient(sys.argv[1])
client.start()
incoming = client.streams("g")
writer = client.open_stream("g")
reader = incoming.accept(10)
future = client.invoke_event_nowait("e")
CALLS = {
    "write": lambda: writer.write("x"), "flush": writer.flush, "end": writer.end, "abort": writer.abort,
    "keep_alive": writer.keep_alive, "accept": incoming.accept, "next stream": lambda: next(iter(incoming)),
    "receive": reader.receive, "next fragment": lambda: next(reader), "close": reader.close,
    "close all": incoming.close, "cancel": future.cancel,
}

def handles():
    with writer, incoming, reader:
        pass
    try:
        with writer, incoming, reader:
            raise KeyError
    except KeyError:
        pass
    repr(writer), repr(incoming), repr(reader), writer.state, writer.acknowledged, reader.ended
    return all_calls()

for lock in (client._engine.mutex, client._conversations.inbox._lock):
    with lock:  # as if a thread had it at the moment of the fork
        assert in_child(handles) == 0
assert reader.receive(10).data == "x"
client.stop(0)
print("parent done")
""",
            peer.url("/client/hubs/hub"), timeout=60,
        )
        peer.close(check=False)
    assert "parent done" in result.stdout, result
