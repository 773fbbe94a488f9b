"""HTTP, sync and async: send one operation, return the reply. Everything else is decided elsewhere."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

from clients.address import Address, ConnectionOptions
from clients.encoding import call_arguments, decode_result
from clients.request import Operation

# The call's own deadline ends it; the library's timeouts, fixed for a connection's life, only must not come first.
_NEVER_S = 1e6


class HttpTransport:
    """tritonclient.http, one client a thread: it runs on gevent, whose sockets belong to the thread that made them."""

    def __init__(self, address: Address, options: ConnectionOptions) -> None:
        self._address = address
        self._options = options
        self._local = threading.local()
        self._headers = dict(options.headers)

    def call(self, operation: Operation, timeout_s: float) -> Any:
        """Send and wait. Raises: whatever the library does; `clients.failures` explains it."""
        import gevent
        from tritonclient import http

        arguments = call_arguments(operation, http)
        client = getattr(self._local, "client", None)
        if client is None:
            client = self._local.client = self._connect()
        try:
            with gevent.Timeout(timeout_s, TimeoutError("timed out")):
                reply = getattr(client, operation.method)(headers=self._headers, **arguments)
        except BaseException as error:
            if type(error).__name__ != "InferenceServerException":
                self.release()  # its connection may hold half an answer
            raise
        return decode_result(reply, operation.inference) if operation.inference is not None else reply

    def _connect(self) -> Any:
        from tritonclient import http

        return http.InferenceServerClient(
            self._address.target,
            connection_timeout=_NEVER_S,
            network_timeout=_NEVER_S,
            ssl=self._address.is_secure,
            ssl_context_factory=self._ssl_context if self._address.is_secure else None,
            insecure=self._options.tls.insecure,
        )

    def _ssl_context(self, cafile: str | None = None) -> Any:
        import gevent.ssl

        return _configure(gevent.ssl.create_default_context(cafile=self._options.tls.ca_file or cafile), self._options)

    def release(self) -> None:
        """Close the calling thread's connections. A thread's connections close by themselves when it ends."""
        client = getattr(self._local, "client", None)
        if client is not None:
            del self._local.client
            client.close()

    def close(self) -> None:
        """Close the calling thread's connections, and forget the other threads', which closes them."""
        self.release()
        self._local = threading.local()


class AsyncHttpTransport:
    """tritonclient.http.aio; its session belongs to the event loop of the first call."""

    def __init__(self, address: Address, options: ConnectionOptions) -> None:
        self._address = address
        self._options = options
        self._client: Any = None
        self._headers = dict(options.headers)

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
        call = getattr(self._client, operation.method)(headers=self._headers, **arguments)
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
