"""The event handler inside real Flask, Django and FastAPI applications, as upstream of the embedded server.

The applications are served by the servers that come with them (werkzeug, wsgiref, uvicorn) on this machine.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import sys
import threading
from typing import Any, Callable, Dict, Iterator, Tuple

import pytest
import requests

from simplepubsub.webpubsub import EventHandler
from tests import peers
from tests.handler_play import HUB, SYSTEM, make_handler, play
from tests.helpers import Recorder, scaled, wait_until
from tests.test_event_handler import TEXT, headers_for
from tests.wsgi import serve_wsgi, serving_forever

KEY = "k" * 40

pytestmark = [
    pytest.mark.interop,
    # What the frameworks deprecate is no failure of ours.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
    pytest.mark.filterwarnings("ignore::PendingDeprecationWarning"),
]

#: Makes an application around an event handler: (the application, the path of the handler's URL).
Mount = Callable[[EventHandler], Tuple[Any, str]]


# ---- servers --------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def werkzeug(app: Any) -> Iterator[str]:
    """Serve a WSGI application by werkzeug's server, a thread for each connection."""
    serving = peers.require("werkzeug.serving", "the event handler in Flask")

    class Silent(serving.WSGIRequestHandler):  # type: ignore[name-defined,misc]
        def log(self, *arguments: Any) -> None:
            pass

    httpd = serving.make_server("127.0.0.1", 0, app, threaded=True, request_handler=Silent)
    httpd.daemon_threads = False  # so that closing it waits for them
    with serving_forever(httpd):
        yield "http://127.0.0.1:%d" % httpd.server_port
    httpd.server_close()


@contextlib.contextmanager
def uvicorn(app: Any) -> Iterator[str]:
    """Serve an ASGI application by uvicorn, its loop in a thread of ours."""
    module = peers.require("uvicorn", "the event handler in FastAPI")
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    config = module.Config(app, log_config=None, access_log=False, lifespan="auto", loop="asyncio", ws="none",
                           timeout_graceful_shutdown=int(scaled(10)) + 1)
    server = module.Server(config)

    def run() -> None:
        loop = asyncio.new_event_loop()
        try:
            loop.run_until_complete(server.serve(sockets=[listener]))
        finally:
            executor = getattr(loop, "_default_executor", None)
            if executor is not None:
                executor.shutdown(wait=True)
            loop.close()

    thread = threading.Thread(target=run)
    thread.start()
    try:
        wait_until(lambda: server.started or not thread.is_alive(), 40, "uvicorn does not start")
        assert server.started
        yield "http://127.0.0.1:%d" % listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


# ---- applications ---------------------------------------------------------------------------------------------------


def flask_site() -> Any:
    flask = peers.require("flask", "the event handler in Flask")
    app = flask.Flask("site")
    app.add_url_rule("/", "home", lambda: "the site")
    return app


def flask_with_a_view(handler: EventHandler) -> Tuple[Any, str]:
    app = flask_site()
    app.add_url_rule("/events/<event>", view_func=handler.flask_view)
    return app, "/events/{event}"


def flask_with_middleware(handler: EventHandler) -> Tuple[Any, str]:
    app = flask_site()
    app.wsgi_app = handler.wsgi_middleware(app.wsgi_app)
    return app, "/api/webpubsub/hubs/{hub}/{event}"


def django_wsgi(handler: EventHandler) -> Tuple[Any, str]:
    django_site(handler)
    return peers.require("django.core.wsgi", "the event handler in Django").get_wsgi_application(), "/events/{event}"


def django_asgi(handler: EventHandler) -> Tuple[Any, str]:
    django_site(handler)
    return peers.require("django.core.asgi", "the event handler in Django").get_asgi_application(), "/events/{event}"


def django_site(handler: EventHandler) -> None:
    """Make the Django site of this process one with this handler in it."""
    django = peers.require("django", "the event handler in Django")
    conf = peers.require("django.conf", "the event handler in Django")
    routing: Any = type(sys)("tests.interop.django_urls")
    if not conf.settings.configured:
        conf.settings.configure(
            ALLOWED_HOSTS=["127.0.0.1"], SECRET_KEY="not secret", ROOT_URLCONF=routing.__name__, LOGGING_CONFIG=None,
            USE_TZ=True, MIDDLEWARE=["django.middleware.security.SecurityMiddleware",
                                     "django.middleware.common.CommonMiddleware",
                                     "django.middleware.csrf.CsrfViewMiddleware",
                                     "django.middleware.clickjacking.XFrameOptionsMiddleware"])
        django.setup(set_prefix=False)
    http = peers.require("django.http", "the event handler in Django")
    urls = peers.require("django.urls", "the event handler in Django")
    routing.urlpatterns = [urls.path("events/<event>", handler.django_view),
                           urls.path("", lambda request: http.HttpResponse("the site"))]
    sys.modules[routing.__name__] = routing
    urls.clear_url_caches()


def fastapi_mount(handler: EventHandler) -> Tuple[Any, str]:
    fastapi = peers.require("fastapi", "the event handler in FastAPI")
    app = fastapi.FastAPI()

    @app.get("/")
    def home() -> str:
        return "the site"

    app.mount("/events", handler.asgi)
    return app, "/events/{event}"


def fastapi_with_middleware(handler: EventHandler) -> Tuple[Any, str]:
    app, _ = fastapi_mount(EventHandler("another", access_key=KEY))
    return handler.asgi_middleware(app), "/api/webpubsub/hubs/{hub}/{event}"


def asgi_alone(handler: EventHandler) -> Tuple[Any, str]:
    return handler.asgi, "/{event}"


SITES: Dict[str, Tuple[Mount, Any]] = {
    "flask view, werkzeug": (flask_with_a_view, werkzeug),
    "flask middleware, werkzeug": (flask_with_middleware, werkzeug),
    "flask view, wsgiref": (flask_with_a_view, serve_wsgi),
    "django view, wsgiref": (django_wsgi, serve_wsgi),
    "django view, uvicorn": (django_asgi, uvicorn),
    "fastapi mount, uvicorn": (fastapi_mount, uvicorn),
    "fastapi middleware, uvicorn": (fastapi_with_middleware, uvicorn),
    "asgi alone, uvicorn": (asgi_alone, uvicorn),
}

_LEAK = pytest.mark.allows_leaks("asgiref, which Django uses under ASGI, keeps a thread until the process ends")

every_site = pytest.mark.parametrize("site", [
    pytest.param(site, marks=[_LEAK] if site == "django view, uvicorn" else []) for site in SITES])


@contextlib.contextmanager
def running(site: str, handler: EventHandler) -> Iterator[Tuple[str, str]]:
    """Serve the application of a site; yields its URL and the path of its event handler."""
    mount, serve = SITES[site]
    app, path = mount(handler)
    with serve(app) as url:
        yield url, path


@pytest.fixture
def notes() -> Recorder:
    return Recorder()


# ---- tests ----------------------------------------------------------------------------------------------------------


@every_site
def test_a_client_goes_through_every_kind_of_event(site: str, fresh_server: Any, notes: Recorder) -> None:
    server = fresh_server(access_key=KEY)
    with running(site, make_handler(KEY, notes, allowed_origins="127.0.0.1")) as (url, path):
        server.add_event_handler(url + path, HUB, system=SYSTEM, retry_delays=())
        play(server, notes)
        server.stop()  # its connections to the application, before the application


@every_site
def test_the_rest_of_the_site_and_what_is_refused(site: str, notes: Recorder) -> None:
    handler = make_handler("first-key-0123456789abcdef", notes, max_body_bytes=1000)
    with running(site, handler) as (url, path), requests.Session() as session:
        address = url + path.format(hub=HUB, event="echo")

        def ask(method: str, body: Any = b"", **more: Any) -> Tuple[int, Any, bytes]:
            headers = headers_for("echo", **more)
            answer = session.request(method, address, data=body, headers=headers, timeout=scaled(20))
            return answer.status_code, answer.headers, answer.content

        if site != "asgi alone, uvicorn":
            assert "the site" in session.get(url + "/", timeout=scaled(20)).text
        status, headers, body = ask("POST", "é".encode())
        assert (status, body, headers["Content-Type"]) == (200, "é".encode(), TEXT)
        status, _, body = ask("POST", iter([b"in ", b"chunks"]))
        assert status == 411 if "wsgiref" in site else (status, body) == (200, b"in chunks")
        status, headers, body = ask("OPTIONS")
        assert (status, headers["WebHook-Allowed-Origin"], body) == (200, "*", b"")
        assert ask("POST", b"x", ce_signature="sha256=0")[0] == 401
        assert ask("POST", b"x", ce_hub="other")[0] == 404
        assert ask("POST", b"x", Content_Type="text/html")[0] == 415
        assert ask("GET")[0] == 405
        assert ask("POST", b"x" * 1001)[0] == 413
    assert len(notes.payloads("echo")) <= 2
