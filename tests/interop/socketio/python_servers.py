"""Socket.IO servers of python-socketio for the conformance tests: a script, driven as `socketio.js` of the Node kit is.

Its argument is "threading" (fixture P: Werkzeug's threaded server) or "asgi" (fixture PA: uvicorn). Options of `start`:
``opts`` for the Server, ``path``, ``tls``, ``requests``, ``early`` as there, ``refuse`` (the Engine.IO connection),
``always`` (always_connect). Handlers run one after the other (async_handlers False), so that order means something.
"""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
import sys
import threading
from typing import Any, Dict, List

import socketio

NAMESPACES = ["/", "/chat", "/room"]
_output = threading.Lock()


def tell(message: Dict[str, Any]) -> None:
    text = json.dumps(message, default=lambda value: {"$bytes": base64.b64encode(value).decode("ascii")})
    with _output:
        sys.stdout.write(text + "\n")
        sys.stdout.flush()


def decode(members: Dict[str, Any]) -> Any:
    return base64.b64decode(members["$bytes"]) if set(members) == {"$bytes"} else members


class Peer:
    """What both kinds of server have in common: a handler is a list of actions and an answer."""

    def __init__(self, number: int, options: Dict[str, Any]) -> None:
        self.number = number
        self.options = options
        self.store: Dict[str, List[Any]] = {}
        self.lock = threading.Lock()
        self.opts = {"async_handlers": False, "cors_allowed_origins": "*", **options.get("opts", {})}

    def log(self, kind: str, **fields: Any) -> None:
        tell({"server": self.number, "kind": kind, **fields})

    def put(self, key: str, values: Any) -> List[Any]:
        with self.lock:
            self.store.setdefault(key, []).extend(values)
            return list(self.store[key])

    def connected(self, sid: str, namespace: str, environ: Dict[str, Any], auth: Any) -> None:
        self.log("connection", sid=sid, namespace=namespace, recovered=False, auth=auth,
                 query=environ.get("QUERY_STRING", ""))

    def request(self, environ: Dict[str, Any]) -> None:
        """Log one, given in the terms of WSGI."""
        headers = {name[5:].replace("_", "-").lower(): value for name, value in environ.items() if name[:5] == "HTTP_"}
        url = "%s?%s" % (environ["PATH_INFO"], environ["QUERY_STRING"])
        self.log("request", method=environ["REQUEST_METHOD"], url=url, headers=headers)

    def handle(self, sid: str, namespace: str, event: str, args: Any) -> Any:
        """Return the actions of an event and its answer: a tuple, or None for no answer."""
        def emit(*values: Any) -> Any:
            return "emit", values

        first = args[0] if args else None
        if event == "echo":
            return [], args
        if event == "put":
            self.put(first, args[1:])
            return [], ()
        if event == "burst":
            return [emit("n", i) for i in range(first)], ()
        if event == "burstbin":
            return [emit("b", i, bytes([i % 256]) * 8, {"x": [b"%d" % i, b""]}) for i in range(first)], ()
        if event == "hello":
            return [emit("world", *args)], None
        if event in ("say", "whisper"):
            return [emit(*args)], None
        if event == "want":
            return [("ask", args)], None
        if event == "silent":
            self.put("silent", args)
            return [], None
        if event == "third":
            return [], ("done",) if self.put("third", args).count(first) == 3 else None
        if event == "info":
            return [("info", ())], None
        if event == "join":
            return [("join", args)], ()
        if event in ("kick", "kicktrue", "eioclose"):
            return [(event, ())], None
        if event == "later":
            return [("later", args)], None
        self.log("event", sid=sid, namespace=namespace, name=event, args=args)
        return [], None

    def answered(self, name: str) -> Any:
        return lambda *values: self.log("answer", to=name, values=values)


def packed(values: Any) -> Any:
    """Return arguments as emit() wants them."""
    return None if not values else tuple(values)


class ThreadingPeer(Peer):
    """Fixture P."""

    def __init__(self, number: int, options: Dict[str, Any]) -> None:
        super().__init__(number, options)
        import logging

        from werkzeug.serving import make_server

        logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
        self.sio = socketio.Server(async_mode="threading", always_connect=bool(options.get("always")), **self.opts)
        for namespace in NAMESPACES:
            self.register(namespace)
        self.sio.on("connect", self.deny, namespace="/deny")
        if options.get("refuse"):
            self.sio.eio.on("connect", lambda sid, environ: options["refuse"])
        application = socketio.WSGIApp(self.sio, socketio_path=options.get("path", "/socket.io").strip("/"))
        context = None
        if options.get("tls"):
            tls = options["tls"]
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH, cafile=tls.get("ca"))
            context.load_cert_chain(tls["cert"], tls["key"])
            if tls.get("ca"):
                context.verify_mode = ssl.CERT_REQUIRED

        def wsgi(environ: Any, start_response: Any) -> Any:
            if options.get("requests"):
                self.request(environ)
            return application(environ, start_response)

        self.http = make_server("127.0.0.1", 0, wsgi, threaded=True, ssl_context=context)
        self.http.daemon_threads = True
        self.port = self.http.server_port
        threading.Thread(target=self.http.serve_forever, daemon=True).start()

    def deny(self, sid: str, environ: Any, auth: Any = None) -> None:
        raise socketio.exceptions.ConnectionRefusedError("nope", {"code": 7})

    def register(self, namespace: str) -> None:
        sio = self.sio

        @sio.on("connect", namespace=namespace)
        def connect(sid: str, environ: Any, auth: Any = None) -> None:
            if self.options.get("delay"):
                sio.sleep(self.options["delay"] / 1000)
            if self.options.get("early"):
                sio.emit("early", "x", to=sid, namespace=namespace)
            self.connected(sid, namespace, environ, auth)

        @sio.on("disconnect", namespace=namespace)
        def disconnect(sid: str, reason: str) -> None:
            self.log("disconnect", sid=sid, namespace=namespace, reason=reason)

        @sio.on("*", namespace=namespace)
        def anything(event: str, sid: str, *args: Any) -> Any:
            actions, answer = self.handle(sid, namespace, event, args)
            for action, values in actions:
                if action == "emit":
                    sio.emit(values[0], packed(values[1:]), to=sid, namespace=namespace)
                elif action == "ask":
                    sio.emit(values[0], packed(values[1:]), to=sid, namespace=namespace,
                             callback=self.answered(values[0]))
                elif action == "info":
                    answer = ({"sid": sid, "transport": sio.transport(sid, namespace)},)
                elif action == "join":
                    sio.enter_room(sid, values[0], namespace=namespace)
                elif action == "kick":
                    sio.disconnect(sid, namespace=namespace)
                elif action in ("kicktrue", "eioclose"):
                    sio.eio.disconnect(sio.manager.eio_sid_from_sid(sid, namespace))
                elif action == "later":
                    sio.start_background_task(self.later, namespace, *values)
            return sio.not_handled if answer is None else tuple(answer)

    def later(self, namespace: str, delay: float, count: int) -> None:
        self.sio.sleep(delay / 1000)
        for i in range(count):
            self.sio.emit("late", i, namespace=namespace)

    def command(self, op: str, command: Dict[str, Any]) -> Any:
        if op == "get":
            with self.lock:
                return list(self.store.get(command["key"], []))
        if op == "count":
            with self.lock:
                return len(self.store.get(command["key"], []))
        if op == "emit":
            name, args = command["args"][0], command["args"][1:]
            return self.sio.emit(name, packed(args), room=command.get("room"), namespace=command.get("namespace"))
        if op == "clients":
            return len(self.sio.eio.sockets)
        raise ValueError(op)


class AsgiPeer(Peer):
    """Fixture PA. Made and used in the event loop."""

    def __init__(self, number: int, options: Dict[str, Any]) -> None:
        super().__init__(number, options)
        import uvicorn

        self.sio = socketio.AsyncServer(async_mode="asgi", always_connect=bool(options.get("always")), **self.opts)
        for namespace in NAMESPACES:
            self.register(namespace)
        self.sio.on("connect", self.deny, namespace="/deny")
        if options.get("refuse"):
            async def refuse(sid: str, environ: Any) -> Any:
                return options["refuse"]

            self.sio.eio.on("connect", refuse)
        application = socketio.ASGIApp(self.sio, socketio_path=options.get("path", "/socket.io").strip("/"))

        async def asgi(scope: Any, receive: Any, send: Any) -> None:
            if options.get("requests") and scope["type"] != "lifespan":
                environ = {"HTTP_" + name.decode().upper().replace("-", "_"): value.decode("latin-1")
                           for name, value in scope["headers"]}
                environ.update(PATH_INFO=scope["path"], QUERY_STRING=scope["query_string"].decode(),
                               REQUEST_METHOD=scope.get("method", "GET"))
                self.request(environ)
            await application(scope, receive, send)

        tls = options.get("tls") or {}
        secure: Dict[str, Any] = {"ssl_certfile": tls["cert"], "ssl_keyfile": tls["key"]} if tls else {}
        if tls.get("ca"):
            secure.update(ssl_ca_certs=tls["ca"], ssl_cert_reqs=ssl.CERT_REQUIRED)
        config = uvicorn.Config(asgi, host="127.0.0.1", port=0, log_level="critical", lifespan="off", **secure)
        self.http = uvicorn.Server(config)
        self.http.install_signal_handlers = lambda: None  # type: ignore[attr-defined, method-assign]  # older ones

    async def start(self) -> None:
        self.task = asyncio.ensure_future(self.http._serve() if hasattr(self.http, "_serve") else self.http.serve())
        while not self.http.started:
            assert not self.task.done()
            await asyncio.sleep(0.01)
        self.port = self.http.servers[0].sockets[0].getsockname()[1]

    async def deny(self, sid: str, environ: Any, auth: Any = None) -> None:
        raise socketio.exceptions.ConnectionRefusedError("nope", {"code": 7})

    def register(self, namespace: str) -> None:
        sio = self.sio

        @sio.on("connect", namespace=namespace)
        async def connect(sid: str, environ: Any, auth: Any = None) -> None:
            if self.options.get("delay"):
                await sio.sleep(self.options["delay"] / 1000)
            if self.options.get("early"):
                await sio.emit("early", "x", to=sid, namespace=namespace)
            self.connected(sid, namespace, environ, auth)

        @sio.on("disconnect", namespace=namespace)
        async def disconnect(sid: str, reason: str) -> None:
            self.log("disconnect", sid=sid, namespace=namespace, reason=reason)

        @sio.on("*", namespace=namespace)
        async def anything(event: str, sid: str, *args: Any) -> Any:
            actions, answer = self.handle(sid, namespace, event, args)
            for action, values in actions:
                if action == "emit":
                    await sio.emit(values[0], packed(values[1:]), to=sid, namespace=namespace)
                elif action == "ask":
                    await sio.emit(values[0], packed(values[1:]), to=sid, namespace=namespace,
                                   callback=self.answered(values[0]))
                elif action == "info":
                    answer = ({"sid": sid, "transport": sio.transport(sid, namespace)},)
                elif action == "join":
                    await sio.enter_room(sid, values[0], namespace=namespace)
                elif action == "kick":
                    await sio.disconnect(sid, namespace=namespace)
                elif action in ("kicktrue", "eioclose"):
                    await sio.eio.disconnect(sio.manager.eio_sid_from_sid(sid, namespace))
                elif action == "later":
                    sio.start_background_task(self.later, namespace, *values)
            return sio.not_handled if answer is None else tuple(answer)

    async def later(self, namespace: str, delay: float, count: int) -> None:
        await self.sio.sleep(delay / 1000)
        for i in range(count):
            await self.sio.emit("late", i, namespace=namespace)

    async def command(self, op: str, command: Dict[str, Any]) -> Any:
        if op == "get":
            return list(self.store.get(command["key"], []))
        if op == "count":
            return len(self.store.get(command["key"], []))
        if op == "emit":
            name, args = command["args"][0], command["args"][1:]
            await self.sio.emit(name, packed(args), room=command.get("room"), namespace=command.get("namespace"))
            return None
        if op == "clients":
            return len(self.sio.eio.sockets)
        raise ValueError(op)


def main(kind: str) -> None:
    """Obey until standard input ends."""
    peers: List[Any] = []
    loop = asyncio.new_event_loop()
    if kind == "asgi":
        threading.Thread(target=loop.run_forever, daemon=True).start()

    async def start(options: Dict[str, Any]) -> AsgiPeer:
        peer = AsgiPeer(len(peers), options)
        await peer.start()
        return peer

    def run(coroutine: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(20)

    def obey(command: Dict[str, Any]) -> Any:
        if command["op"] == "start":
            options = command["options"]
            peer = run(start(options)) if kind == "asgi" else ThreadingPeer(len(peers), options)
            peers.append(peer)
            return {"server": peer.number, "port": peer.port}
        result = peers[command["server"]].command(command["op"], command)
        return run(result) if kind == "asgi" else result

    tell({"ready": True})
    for line in sys.stdin:
        command = json.loads(line, object_hook=decode)
        try:
            tell({"id": command["id"], "result": obey(command)})
        except Exception as error:  # noqa: BLE001  # told to the test
            tell({"id": command["id"], "error": "%s: %s" % (type(error).__name__, error)})


if __name__ == "__main__":
    main(sys.argv[1])
    import os

    os._exit(0)  # whatever is still connected
