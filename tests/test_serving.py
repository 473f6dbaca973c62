"""The process that tests fork their work from: what comes back, also when somebody ends it."""

import os
import signal
import threading

import pytest

from commanding import environment
from serving import Server


def test_what_a_killed_child_and_a_killed_server_say():
    with Server(environment=environment()) as server:
        assert server.run("os:system", "exit 0").status == 0
        assert server.run("os:system", "kill -9 $PPID").status == -signal.SIGKILL
        assert server._server is not None
        number = server._server.pid
        threading.Timer(0.5, os.kill, (number, signal.SIGKILL)).start()
        with pytest.raises(RuntimeError) as caught:
            server.run("os:system", "sleep 2")
        said = str(caught.value)
        assert f"(serving.py, pid {number}) ended with status -9 at os:system sleep 2; if nobody" in said
        with pytest.raises(RuntimeError, match=r"ended with status -9 at serving:nothing"):
            server.run("serving:nothing")
