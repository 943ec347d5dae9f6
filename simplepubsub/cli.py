"""The ``simplepubsub`` command: ``serve`` runs the embedded Web PubSub server, ``demo`` shows what the client survives.

Exit status: 0 when all went well, 2 when something that was asked for cannot be done (one line on stderr says what),
and whatever ``demo`` finds.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import queue
import signal
import ssl
import sys
from typing import Any, List, NoReturn, Optional

from .exceptions import InvalidArgument, ServerError, SimplePubSubError
from .version import __version__

__all__ = ["main"]

_LEVELS = ("debug", "info", "warning", "error")


def main(arguments: Optional[List[str]] = None) -> int:
    """Run the command line (``sys.argv`` by default) and return the exit status."""
    parser = _parser()
    options = parser.parse_args(arguments)
    if options.command is None:
        parser.print_help(sys.stderr)
        return 2
    try:
        return _serve(options) if options.command == "serve" else _demo(options)
    except (SimplePubSubError, ImportError, OSError) as error:
        print("simplepubsub %s: %s" % (options.command, " ".join(str(error).split())), file=sys.stderr)
        return 2


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say in one line what is wrong with the arguments, and exit with status 2."""
        self.exit(2, "%s: %s; see %s --help\n" % (self.prog, message, self.prog))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="simplepubsub", description="Blocking real-time pub/sub.")
    parser.add_argument("--version", action="version", version="simplepubsub " + __version__)
    commands = parser.add_subparsers(dest="command", metavar="COMMAND")
    serve = commands.add_parser(
        "serve",
        help="run a Web PubSub server until Ctrl-C",
        description="Run a Web PubSub server until Ctrl-C; it prints its endpoint, connection string and a client URL.",
    )
    serve.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    serve.add_argument("--port", type=_port, default=8080, help="port, 0 for any free one (default: %(default)s)")
    serve.add_argument(
        "--access-key",
        metavar="KEY",
        default=os.environ.get("SIMPLEPUBSUB_ACCESS_KEY"),
        help="key of at least 32 bytes that signs tokens (default: the environment variable SIMPLEPUBSUB_ACCESS_KEY, "
        "or else a public development key, good for loopback only)",
    )
    serve.add_argument("--tls-cert", metavar="FILE", help="certificate chain in PEM; makes the server speak TLS")
    serve.add_argument("--tls-key", metavar="FILE", help="private key in PEM, unless the certificate file has it")
    serve.add_argument("--hub", default="hub", help="hub of the client URL that is printed (default: %(default)s)")
    serve.add_argument(
        "--event-handler",
        action="append",
        default=[],
        metavar="hub=H,url=U,events=E,system=S",
        help="send events to this URL, as CloudEvents; repeatable, and the first that takes an event gets it. url is "
        "http or https, {hub} and {event} in its path or query stand for the names. hub: one hub (default: all). "
        "events: user events, with + between them, or * (default), or nothing for none. system: any of connect, "
        "connected, disconnected (these three by default), joined, left, with + between them. timeout: seconds for an "
        "event, all attempts together (default: 100). A comma followed by one of these names and = begins a field; in "
        "a url's path write commas as %%2C",
    )
    serve.add_argument("--log-level", choices=_LEVELS, default="warning", help="how much to log (default: %(default)s)")
    serve.add_argument(
        "--insecure-development-key",
        action="store_true",
        help="allow the public development key on an address that others can reach",
    )
    demo = commands.add_parser("demo", help="send a file through a network that keeps breaking")
    try:
        from .demo import add_arguments
    except ImportError:
        pass  # reported when it is run: the other commands must work without what the demo needs
    else:
        add_arguments(demo)
    return parser


def _port(text: str) -> int:
    if not text.isdigit() or int(text) > 65535:
        raise argparse.ArgumentTypeError("%r is not a number from 0 to 65535" % text)
    return int(text)


def _demo(options: argparse.Namespace) -> int:
    from .demo import run

    return int(run(options))


def _serve(options: argparse.Namespace) -> int:
    """Run the server until SIGINT or SIGTERM. Raises ServerError, or ImportError without aiohttp."""
    # Not an event: its lock may be held by this very thread, in `wait`, when the signal comes.
    stop: "queue.SimpleQueue[int]" = queue.SimpleQueue()
    # From here on a signal ends the command in the ordinary way, also one that comes while the server starts.
    previous = {number: signal.signal(number, lambda *_: stop.put(0)) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        logging.basicConfig(
            level=getattr(logging, options.log_level.upper()), format="%(asctime)s %(levelname)s %(name)s %(message)s"
        )
        from .server import DEVELOPMENT_ACCESS_KEY, Server
        from .server.event_routes import parse_event_handler

        server = Server(
            host=options.host,
            port=options.port,
            access_key=DEVELOPMENT_ACCESS_KEY if options.access_key is None else options.access_key,
            ssl=_tls(options.tls_cert, options.tls_key),
            allow_public_development_key=options.insecure_development_key,
        )
        for text in options.event_handler:
            try:
                server.add_event_handler(**parse_event_handler(text))
            except InvalidArgument as error:
                raise ServerError("--event-handler: %s" % error) from error
        try:
            with server:
                url = server.client_access_url(options.hub)
                print("endpoint:          %s" % server.endpoint)
                print("connection string: %s" % server.connection_string)
                print("client URL:        %s" % url)
                print("running; Ctrl-C ends it", flush=True)
                # A bounded wait in a loop: on Windows an endless one cannot be interrupted.
                while True:
                    with contextlib.suppress(queue.Empty):
                        stop.get(timeout=1.0)
                        break
        except ServerError as error:
            if "development access key" in str(error):
                raise ServerError(
                    "the development access key is public, so the server does not bind to %s with it: "
                    "pass --access-key, or --insecure-development-key if that is what you want" % options.host
                ) from error
            raise
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
    return 0


def _tls(certificate: Optional[str], key: Optional[str]) -> Any:
    """Return the server's TLS context, None for plain TCP. Raises ServerError that names the file at fault."""
    if certificate is None:
        if key is not None:
            raise ServerError("--tls-key needs --tls-cert")
        return None
    for name in (certificate, key):
        if name is not None and not os.path.isfile(name):
            raise ServerError("no such file: %s" % name)
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    try:
        context.load_cert_chain(certificate, key)
    except (ssl.SSLError, OSError) as error:
        raise ServerError("cannot use the certificate %s: %s" % (certificate, error)) from error
    return context
