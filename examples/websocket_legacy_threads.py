"""Worker threads of the old kind share a connection: jobs come in, results go out. Usage: [URI OF A JOB SERVER]"""

from __future__ import annotations

import contextlib
import sys
import threading

from simplepubsub import websockets

JOBS = 1000


def job_server(connection):
    for number in range(JOBS):
        connection.send(str(number))
    results = {connection.recv(timeout=30) for _ in range(JOBS)}
    print("%d jobs done, all results right: %s" % (JOBS, results == {"%d %d" % (n, n * n) for n in range(JOBS)}))


def work(connection):
    for job in connection:  # each job goes to one of the threads; ends when the server closes the connection
        connection.send("%s %d" % (job, int(job) ** 2))


with contextlib.ExitStack() as stack:
    if sys.argv[1:]:
        uri = sys.argv[1]
    else:
        uri = "ws://localhost:%d" % stack.enter_context(websockets.serve(job_server, "localhost", 0)).port
    connection = stack.enter_context(websockets.connect(uri))
    workers = [threading.Thread(target=work, args=(connection,)) for _ in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    print("closed with", connection.close_code)
