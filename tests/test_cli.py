"""The ``simplepubsub`` command: ``serve`` as a process, and its refusals in one line."""

from __future__ import annotations

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from simplepubsub import cli
from simplepubsub.server import DEVELOPMENT_ACCESS_KEY
from tests.helpers import scaled, self_signed, subprocess_python
from tests.rawclient import PLAIN, RawClient
from tests.upstreams import ScriptedUpstream

ROOT = Path(__file__).resolve().parent.parent
OWN_KEY = "a-key-of-our-own-0123456789abcdef-0123456789"
SERVE = "import sys; from simplepubsub.cli import main; sys.exit(main(sys.argv[1:]))"


def serve(*arguments, **options):
    return subprocess_python(SERVE, "serve", *arguments, **options)


def url_of(child):
    return re.search(r"wss?://\S+", child.wait_line("client URL:")).group()


def test_serve_prints_what_one_needs_and_ends_with_ctrl_c():
    with serve("--port", "0") as child:
        endpoint = re.search(r"http://127\.0\.0\.1:\d+", child.wait_line("endpoint:")).group()
        text = "Endpoint=%s;AccessKey=%s;Version=1.0;" % (endpoint, DEVELOPMENT_ACCESS_KEY)
        assert text in child.wait_line("connection string:")
        with RawClient(url_of(child), PLAIN) as client:
            client.join("lobby")
            child.interrupt()
            assert client.receive()["event"] == "disconnected"
            assert client.expect_close()[0] == 1001
        result = child.wait()
    assert result.returncode == 0
    assert "Traceback" not in result.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM to handle")
def test_serve_ends_with_sigterm():
    with serve("--port", "0") as child:
        child.wait_line("running")
        child.process.send_signal(signal.SIGTERM)
        assert child.wait().returncode == 0


SIGNAL_IN_WAIT = """
import os, signal, sys
from simplepubsub import cli

def trace(frame, event, argument):
    back = frame.f_back
    if event == "line" and frame.f_code.co_name == "wait" and back and back.f_code.co_filename == cli.__file__:
        os.kill(os.getpid(), signal.SIGTERM)
    return trace

sys.settrace(trace)
sys.exit(cli.main(["serve", "--port", "0"]))
"""


@pytest.mark.skipif(sys.platform == "win32", reason="there is no SIGTERM to handle")
def test_a_signal_at_any_line_of_the_wait_for_one_ends_serve():
    # The lock of an Event may be held then, and the handler waited for it for ever.
    with subprocess_python(SIGNAL_IN_WAIT) as child:
        child.wait_line("running")
        if child.process.poll() is None:
            child.process.send_signal(signal.SIGTERM)
        assert child.wait().returncode == 0


def test_serve_with_tls_and_a_key_of_ones_own(tmp_path):
    certificate = self_signed(tmp_path)
    options = ["--tls-cert", str(certificate.cert_file), "--tls-key", str(certificate.key_file)]
    with serve("--port", "0", "--access-key", OWN_KEY, "--hub", "news", *options) as child:
        url = url_of(child)
        assert url.startswith("wss://") and "/client/hubs/news?" in url
        with RawClient(url, PLAIN, sslopt={"context": certificate.client_context}) as client:
            client.join("lobby")
        child.interrupt()
        assert child.wait().returncode == 0


def test_events_go_to_event_handlers_in_order():
    with ScriptedUpstream() as upstream:
        first = "hub=news,url=%s,events=one+two,system=connect+joined" % upstream.url("/first/{event}?codes=a,b&c==d")
        second = "url=%s" % upstream.url("/second/{hub}/{event}")
        options = ["--hub", "news", "--event-handler", first, "--event-handler", second]
        with serve("--port", "0", *options) as child:
            with RawClient(url_of(child), PLAIN) as client:
                client.join("lobby")
                for number, event in enumerate(("one", "two", "three")):
                    client.send({"type": "event", "event": event, "data": 1, "ackId": number})
                    assert client.receive()["success"] is True
                client.close()
            upstream.wait(7)
            child.interrupt()
            assert child.wait().returncode == 0
        assert [request.path for request in upstream.posts] == [
            "/first/connect?codes=a,b&c==d", "/second/news/connected", "/first/joined?codes=a,b&c==d",
            "/first/one?codes=a,b&c==d", "/first/two?codes=a,b&c==d",
            "/second/news/three", "/second/news/disconnected",
        ]  # fmt: skip


def test_the_key_may_come_from_the_environment():
    with serve("--port", "0", env={"SIMPLEPUBSUB_ACCESS_KEY": OWN_KEY}) as child:
        assert "AccessKey=%s;" % OWN_KEY in child.wait_line("connection string:")


def test_python_dash_m():
    command = [sys.executable, "-m", "simplepubsub", "--version"]
    result = subprocess.run(command, stdout=subprocess.PIPE, cwd=str(ROOT), timeout=scaled(20), check=True)
    assert re.match(r"simplepubsub \d+\.\d+", result.stdout.decode())


@pytest.fixture
def taken_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen(1)
        yield str(sock.getsockname()[1])


def refusal(capsys, *arguments):
    """Run the command in this process; return its one line on stderr."""
    try:
        status = cli.main(list(arguments))
    except SystemExit as error:
        status = error.code
    captured = capsys.readouterr()
    assert (status, captured.out) == (2, "")
    (line,) = captured.err.splitlines()
    return line


def test_a_taken_port(capsys, taken_port):
    line = refusal(capsys, "serve", "--port", taken_port)
    assert line.startswith("simplepubsub serve: cannot listen on 127.0.0.1 port %s: " % taken_port)


REFUSALS = [
    (["serve", "--port", "99999"], "'99999' is not a number from 0 to 65535"),
    (["serve", "--port", "http"], "'http' is not a number from 0 to 65535"),
    (["serve", "--port", "0", "--access-key", "short"], "access_key has 5 bytes, at least 32 are needed"),
    (["serve", "--port", "0", "--host", "0.0.0.0"], "--insecure-development-key"),
    (["serve", "--port", "0", "--host", "no-such-host.invalid"], "no-such-host.invalid"),
    (["serve", "--port", "0", "--tls-cert", "missing.pem"], "no such file: missing.pem"),
    (["serve", "--port", "0", "--tls-key", "missing.pem"], "--tls-key needs --tls-cert"),
    (["serve", "--port", "0", "--tls-cert", __file__], "cannot use the certificate"),
    (["serve", "--port", "0", "--hub", "no/hub"], "hub must be"),
    (["serve", "--log-level", "loud"], "invalid choice"),
    (["serve", "--port", "0", "--event-handler", "hub=plaza"], "--event-handler: url= is missing"),
    (["serve", "--port", "0", "--event-handler", "http://h/"], "--event-handler: expected one of hub=, url="),
    (["serve", "--port", "0", "--event-handler", "url=http://{hub}/"], "not in its host"),
    (["serve", "--port", "0", "--event-handler", "url=http://h/,events=1st"], "names of user events"),
    (["serve", "--port", "0", "--event-handler", "url=http://h/,system=message"], "not 'message'"),
    (["serve", "--port", "0", "--event-handler", "url=http://h/,hub=no/hub"], "hub must be"),
    (["dance"], "invalid choice"),
]


@pytest.mark.parametrize("arguments, text", REFUSALS, ids=[" ".join(item[0][:4]) for item in REFUSALS])
def test_refusals_are_one_line_and_status_2(capsys, arguments, text):
    assert text in refusal(capsys, *arguments)


def test_an_address_that_others_can_reach_needs_a_key_or_many_words():
    for words in (["--access-key", OWN_KEY], ["--insecure-development-key"]):
        with serve("--port", "0", "--host", "0.0.0.0", *words) as child:
            child.wait_line("running")
            child.interrupt()
            assert child.wait().returncode == 0


def test_without_a_command_it_shows_its_help(capsys):
    assert cli.main([]) == 2
    assert "serve" in capsys.readouterr().err


def test_without_aiohttp_it_says_what_to_install(capsys, monkeypatch):
    for name in [name for name in sys.modules if name.startswith("simplepubsub.server")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "aiohttp", None)
    assert "pip install 'simplepubsub[server]'" in refusal(capsys, "serve", "--port", "0")
