"""A TCP proxy that can lose answers, and be slow."""

from __future__ import annotations

import contextlib
import socket
import threading
import time


class Proxy:
    """Forwards to an address. What the server answers can be swallowed, and all cut."""

    def __init__(self, address: str, delay: float = 0) -> None:
        host, _, port = address.rpartition(":")
        self._upstream = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._lock = threading.Lock()
        self._open: list[socket.socket] = []
        self._swallowing = False
        self._delay = delay
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def swallow(self) -> None:
        """From now on clients are not answered."""
        self._swallowing = True

    def cut(self) -> None:
        """Closes all connections; new ones work."""
        self._swallowing = False
        with self._lock:
            connections, self._open = self._open, []
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._upstream)
            with self._lock:
                self._open += [client, server]
            for pair in ((client, server), (server, client)):
                threading.Thread(target=self._forward, args=pair, daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        from_server = source.getpeername() == self._upstream
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                time.sleep(self._delay)
                if not (from_server and self._swallowing):
                    sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        source.close()
