"""HTTP, sync and async: send one operation, return the reply. Everything else is decided elsewhere."""

from __future__ import annotations

import asyncio
import threading
import weakref
from typing import Any

from clients.address import Address, ConnectionOptions
from clients.encoding import call_arguments, decode_result
from clients.request import Operation

# The call's own deadline ends it; the library's timeouts, fixed for a connection's life, only must not come first.
_NEVER_S = 1e6


class _ThreadLoop:
    """gevent's event loop for one thread, and the clients on it: gone when the thread ends.

    gevent (26.9) leaves four file descriptors behind for each thread that has used it and ended.
    """

    def __init__(self) -> None:
        import gevent

        self.clients: weakref.WeakSet[Any] = weakref.WeakSet()
        self._hub = gevent.get_hub()
        self._thread = threading.get_ident()
        self._ends_with_thread = threading.current_thread() is not threading.main_thread()

    def __del__(self) -> None:
        if self._ends_with_thread and threading.get_ident() == self._thread:
            from gevent.hub import set_hub

            # By now gevent has forgotten the thread's loop, and would make another one just to close what is on it.
            set_hub(self._hub)
            for client in list(self.clients):
                client.close()
            self._hub.destroy(destroy_loop=True)


_this_thread = threading.local()


class HttpTransport:
    """tritonclient.http, one client a thread: it runs on gevent, whose sockets belong to the thread that made them."""

    def __init__(self, address: Address, options: ConnectionOptions) -> None:
        self._address = address
        self._options = options
        self._local = threading.local()
        self._clients: weakref.WeakSet[Any] = weakref.WeakSet()

    def call(self, operation: Operation, timeout_s: float) -> Any:
        """Send and wait. Raises: whatever the library does; `clients.failures` explains it."""
        import gevent
        from tritonclient import http

        arguments = call_arguments(operation, http)
        client = getattr(self._local, "client", None) or self._connect()
        try:
            with gevent.Timeout(timeout_s, TimeoutError("timed out")):
                # A copy: tritonclient writes the lengths of this very request into the headers that it is given.
                reply = getattr(client, operation.method)(headers=dict(self._options.headers), **arguments)
        except BaseException as error:
            if type(error).__name__ != "InferenceServerException":
                self.release()  # its connection may hold half an answer
            raise
        return decode_result(reply, operation.inference) if operation.inference is not None else reply

    def _connect(self) -> Any:
        from tritonclient import http

        client = http.InferenceServerClient(
            self._address.target,
            connection_timeout=_NEVER_S,
            network_timeout=_NEVER_S,
            ssl=self._address.is_secure,
            ssl_context_factory=self._ssl_context if self._address.is_secure else None,
            insecure=self._options.tls.insecure,
        )
        if not hasattr(_this_thread, "loop"):
            _this_thread.loop = _ThreadLoop()
        _this_thread.loop.clients.add(client)
        self._clients.add(client)
        self._local.client = client
        return client

    def _ssl_context(self, cafile: str | None = None) -> Any:
        import gevent.ssl

        return _configure(gevent.ssl.create_default_context(cafile=self._options.tls.ca_file or cafile), self._options)

    def release(self) -> None:
        """Close the calling thread's connection; a thread's is closed anyway when it ends."""
        client = self._local.__dict__.pop("client", None)
        if client is not None:
            client.close()

    def close(self) -> None:
        """Close every thread's connection; none may be in use."""
        for client in list(self._clients):
            client.close()
        self._local = threading.local()


class AsyncHttpTransport:
    """tritonclient.http.aio; its session belongs to the event loop of the first call."""

    def __init__(self, address: Address, options: ConnectionOptions) -> None:
        self._address = address
        self._options = options
        self._client: Any = None

    async def call(self, operation: Operation, timeout_s: float) -> Any:
        """Send and wait. Raises: whatever the library does; `clients.failures` explains it."""
        from tritonclient import http
        from tritonclient.http import aio

        if self._client is None:
            self._client = aio.InferenceServerClient(
                self._address.target,
                conn_timeout=_NEVER_S,
                ssl=self._address.is_secure,
                ssl_context=self._ssl_context() if self._address.is_secure else None,
            )
        arguments = call_arguments(operation, http)
        call = getattr(self._client, operation.method)(headers=dict(self._options.headers), **arguments)
        reply = await asyncio.wait_for(call, timeout_s)
        return decode_result(reply, operation.inference) if operation.inference is not None else reply

    def _ssl_context(self) -> Any:
        import ssl

        return _configure(ssl.create_default_context(cafile=self._options.tls.ca_file), self._options)

    async def close(self) -> None:
        """Close the session."""
        client, self._client = self._client, None
        if client is not None:
            await client.close()


def _configure(context: Any, options: ConnectionOptions) -> Any:
    """Put the client's own certificate into a TLS context, and the check of the server's out where asked."""
    import ssl

    tls = options.tls
    if tls.cert_file:
        context.load_cert_chain(tls.cert_file, tls.key_file)
    if tls.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context
