"""A TCP proxy that can drop responses and delay data."""

from __future__ import annotations

import contextlib
import socket
import threading
import time


class Proxy:
    """Forwards connections to an address. It can drop responses and close all connections."""

    def __init__(self, address: str, delay: float = 0) -> None:
        host, _, port = address.rpartition(":")
        self._upstream = (host, int(port))
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._is_dropping = False
        self._delay = delay
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._accepting.start()

    def drop_responses(self) -> None:
        """Drops the data of the server from now on."""
        self._is_dropping = True

    def close_connections(self) -> None:
        """Closes all connections; new ones are forwarded completely."""
        self._is_dropping = False
        with self._lock:
            connections, self._sockets = self._sockets, []
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._accepting.join()
        self._listener.close()
        self.close_connections()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._upstream)
            with self._lock:
                self._sockets += [client, server]
            for pair in ((client, server), (server, client)):
                threading.Thread(target=self._forward, args=pair, daemon=True).start()

    def _forward(self, source: socket.socket, sink: socket.socket) -> None:
        from_server = source.getpeername() == self._upstream
        with contextlib.suppress(OSError):
            while data := source.recv(65536):
                time.sleep(self._delay)
                if not (from_server and self._is_dropping):
                    sink.sendall(data)
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
        source.close()
