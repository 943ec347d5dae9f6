"""An event handler in a Flask application, and a server that posts its events there. Needs Flask."""

from __future__ import annotations

import sys
import threading

from simplepubsub.server import Server
from simplepubsub.webpubsub import EventHandler, WebPubSubClient

try:
    import flask
    from werkzeug.serving import WSGIRequestHandler, make_server
except ImportError:
    sys.exit(print("this example needs Flask: pip install flask"))

KEY = "use the access key of your service here"
WSGIRequestHandler.log = lambda *_: None  # no line per request

app = flask.Flask("example")
handler = EventHandler("chat", access_key=KEY)
app.add_url_rule("/events/<event>", view_func=handler.flask_view)


@handler.on_event("shout")
def shout(request):
    return request.data.upper()


web = make_server("127.0.0.1", 0, app, threaded=True)
threading.Thread(target=web.serve_forever).start()
with Server(access_key=KEY) as server:
    server.add_event_handler("http://127.0.0.1:%d/events/{event}" % web.server_port, hub="chat")
    with WebPubSubClient(server.client_access_url("chat", user_id="ann")) as client:
        client.send_event("shout", "hello")
        print("answer:", client.receive(timeout=10).data)
web.shutdown()
