"""Straight to the handler, for the requests that are many.

FastAPI looks for a route by asking each in turn, and wraps what it finds in layers that our handlers do not use: for a
request of a small model that is a notable share of the gateway's work. What is not found here goes FastAPI's way.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable

from starlette.requests import Request
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send


class ShortWay:
    """ASGI middleware before FastAPI; knows the plain POST routes by their paths. Errors are for `Entry` to answer."""

    def __init__(self, app: ASGIApp, routes: Iterable[BaseRoute]) -> None:
        self._app = app
        posts = [r for r in routes if type(r) is Route and "POST" in (r.methods or ())]
        self._exact = {route.path: route for route in posts if not route.param_convertors}
        self._patterns = [(route.path_regex, route) for route in posts if route.param_convertors]
        self._handlers = {route.endpoint for route in posts if inspect.iscoroutinefunction(route.endpoint)}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] == "http" and scope["method"] == "POST" and not scope.get("root_path"):
            path = scope["path"]
            route = self._exact.get(path)
            parameters = {}
            if route is None:
                for pattern, candidate in self._patterns:
                    found = pattern.match(path)
                    if found is not None:
                        route, parameters = candidate, found.groupdict()
                        break
            if route is not None:
                scope["route"], scope["endpoint"], scope["path_params"] = route, route.endpoint, parameters
                if route.endpoint in self._handlers:
                    response = await route.endpoint(Request(scope, receive, send))
                    await response(scope, receive, send)
                else:  # an ASGI application
                    await route.app(scope, receive, send)
                return
        await self._app(scope, receive, send)
