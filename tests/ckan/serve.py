"""CKAN's own WSGI application, run by CKAN's own Python: loaded once, then served from a forked process that may be killed.

    python serve.py CKAN.INI PORT FOLDER

This process loads CKAN and serves nothing. SIGHUP lets it fork a process that listens on PORT and writes its number to
FOLDER/site.pid; a kill -9 of that one is a CKAN that died, its database connections with it, and the next SIGHUP is its restart
without seconds of loading. FOLDER/kill.json says when the serving process kills itself:
{"action": "datastore_create", "nth": 2, "when": "before" | "commit" | "after"}.
"""

import contextlib
import ctypes
import json
import os
import signal
import sys
from pathlib import Path

from ckan.cli import load_config
from ckan.config.middleware import make_app
from sqlalchemy import event
from sqlalchemy.engine import Engine
from werkzeug.serving import WSGIRequestHandler, make_server

SIGNALS = {signal.SIGHUP, signal.SIGCHLD, signal.SIGTERM}


class Killable:
    """The application, and the moment at which its process is to die."""

    def __init__(self, app, folder):
        self.app = app
        self.order = folder / "kill.json"
        self.dies_at_commit = False
        event.listen(Engine, "commit", self._before_commit)

    def __call__(self, environ, start_response):
        when = self._turn(environ["PATH_INFO"].rsplit("/", 1)[-1])
        if when == "before":
            os.kill(os.getpid(), signal.SIGKILL)
        self.dies_at_commit = when == "commit"
        answer = self.app(environ, start_response)
        if when == "after":
            # the work is done and committed; its answer never leaves
            b"".join(answer)
            os.kill(os.getpid(), signal.SIGKILL)
        return answer

    def _turn(self, action):
        try:
            order = json.loads(self.order.read_text())
        except FileNotFoundError:
            return ""
        if order["action"] != action:
            return ""
        order["nth"] -= 1
        if order["nth"] <= 0:
            self.order.unlink()
            return order["when"]
        self.order.write_text(json.dumps(order))
        return ""

    def _before_commit(self, connection):
        if self.dies_at_commit and connection.engine.url.database == "datastore":
            os.kill(os.getpid(), signal.SIGKILL)


class Quiet(WSGIRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_request(self, code="-", size="-"):
        pass


def serve(app, port, folder):
    """Listen until killed."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    from ckan import model
    from ckanext.datastore.backend import postgres

    # the connections of the process that loaded the application stay its own
    model.meta.engine.dispose(close=False)
    for engine in postgres._engines.values():
        engine.dispose(close=False)
    server = make_server("127.0.0.1", port, app, threaded=True, request_handler=Quiet)
    server.daemon_threads = True
    making = folder / "site.pid.new"
    making.write_text(str(os.getpid()))
    making.rename(folder / "site.pid")
    server.serve_forever()


def main(configuration, port, folder):
    folder = Path(folder)
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    app = Killable(make_app(load_config(configuration)), folder)
    (folder / "loaded").touch()
    child = 0
    while True:
        asked = signal.sigwait(SIGNALS)
        with contextlib.suppress(ChildProcessError):
            # first, whatever the signal: two that come together come in the order of their numbers, not of time
            if child and os.waitpid(child, os.WNOHANG)[0]:
                child = 0
        if asked == signal.SIGHUP and not child:
            child = os.fork()
            if not child:
                serve(app, int(port), folder)
        elif asked == signal.SIGTERM:
            if child:
                os.kill(child, signal.SIGKILL)
            return


if __name__ == "__main__":
    main(*sys.argv[1:])
