"""Views for web frameworks that do not mount WSGI applications below a path: Flask and Django.

The frameworks are imported when a view is called, by the application that already uses them; neither is a dependency.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Callable

from .event_wsgi import TO_ITS_END, answer_stream, body_length

if TYPE_CHECKING:
    from .event_handler import EventHandler

__all__ = ["django_view", "flask_view"]


def flask_view(handler: "EventHandler") -> Callable[..., Any]:
    """Return a Flask view; variables in its rule, such as ``<event>``, are accepted and not needed."""

    def event_handler(**variables: Any) -> Any:
        request = importlib.import_module("flask").request
        length = body_length(request.environ)
        status, headers, content = answer_stream(handler, request.method, request.headers, request.stream.read, length)
        return content, status, headers

    # Flask reads these: the answer to OPTIONS is ours.
    setattr(event_handler, "methods", ["OPTIONS", "POST"])  # noqa: B010
    setattr(event_handler, "provide_automatic_options", False)  # noqa: B010
    return event_handler


def django_view(handler: "EventHandler") -> Callable[..., Any]:
    """Return a Django view; variables in its route, such as ``<event>``, are accepted and not needed."""

    def event_handler(request: Any, **variables: Any) -> Any:
        length = request.headers.get("Content-Length") or None
        if length is None and not hasattr(request, "environ"):
            length = TO_ITS_END  # under ASGI Django has the whole body already
        elif length is None and not request.headers.get("Transfer-Encoding"):
            length = ""  # what is left, a chunked body under WSGI, Django cannot read
        status, headers, content = answer_stream(handler, request.method, request.headers, request.read, length)
        response = importlib.import_module("django.http").HttpResponse(content, status=status)
        if "Content-Type" not in headers:
            del response["Content-Type"]
        for name, value in headers.items():
            response[name] = value
        return response

    # A signature stands in for the token; Django's middleware looks at this attribute.
    setattr(event_handler, "csrf_exempt", True)  # noqa: B010
    return event_handler
