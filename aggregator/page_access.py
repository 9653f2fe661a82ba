"""Who may see the operator's page: whoever has its token, or an operator's certificate.

A partner's certificate is of the same authority and opens nothing here. The token lies
in a file for the operator alone; a browser that showed it gets a cookie for half a day,
which is worthless for another server and without the token's file.
"""

import hashlib
import hmac
import secrets
import ssl
import time
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from aggregator.authority import Authority
from fedtrain.core.errors import IdentityError
from fedtrain.wire.identity import read_private, write_private

COOKIE = "__Host-fedtrain-page"
SESSION_S = 12 * 3600
_TOKEN_BYTES = 32
_MOST_TOKEN = 200


def token_in(path: Path) -> str:
    """The page's token, made where there is none.

    Raises:
      IdentityError: If others may read its file.
    """
    if not path.exists():
        write_private(path, secrets.token_urlsafe(_TOKEN_BYTES) + "\n")
    token = read_private(path).decode().strip()
    if len(token) < _TOKEN_BYTES:
        raise IdentityError(
            f"{path} holds no token that is long enough. Remove it: the next start "
            "makes another."
        )
    return token


class Access:
    """Decides about requests.

    Args:
      token: From ``token_in``.
      authority: Knows the operators' certificates.
      clock: Seconds since 1970.
    """

    def __init__(
        self,
        token: str,
        authority: Authority,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._token = token.encode()
        self._authority = authority
        self._clock = clock

    def allows(self, request: web.Request) -> bool:
        """Whether the request shows a certificate, the token, or a session's cookie."""
        return (
            self._shows_certificate(request)
            or self._shows_token(request)
            or self._is_session(request.cookies.get(COOKIE, ""))
        )

    def is_token(self, given: str) -> bool:
        """Whether ``given`` is the token; takes as long whatever it is."""
        return hmac.compare_digest(
            given[:_MOST_TOKEN].encode(errors="replace"), self._token
        )

    def begin(self, response: web.StreamResponse) -> None:
        """Gives the browser a session."""
        ends = int(self._clock()) + SESSION_S
        response.set_cookie(
            COOKIE,
            f"{ends}.{self._seal(ends)}",
            max_age=SESSION_S,
            path="/",
            secure=True,
            httponly=True,
            samesite="Strict",
        )

    def end(self, response: web.StreamResponse) -> None:
        """Takes the browser's session away."""
        response.del_cookie(COOKIE, path="/", secure=True, httponly=True)

    def _shows_token(self, request: web.Request) -> bool:
        kind, _, given = request.headers.get("Authorization", "").partition(" ")
        return kind.lower() == "bearer" and self.is_token(given.strip())

    def _shows_certificate(self, request: web.Request) -> bool:
        connection = request.get_extra_info("ssl_object")
        shown = connection.getpeercert(binary_form=True) if connection else None
        if not shown:
            return False
        try:
            self._authority.operators.checked(ssl.DER_cert_to_PEM_cert(shown))
        except IdentityError:
            return False
        return True

    def _is_session(self, cookie: str) -> bool:
        ends, _, seal = cookie[:_MOST_TOKEN].partition(".")
        if not (ends.isascii() and ends.isdigit()) or int(ends) < self._clock():
            return False
        return hmac.compare_digest(
            seal.encode(errors="replace"), self._seal(int(ends)).encode()
        )

    def _seal(self, ends: int) -> str:
        text = f"fedtrain operator page session until {ends}".encode()
        return hmac.new(self._token, text, hashlib.sha256).hexdigest()
