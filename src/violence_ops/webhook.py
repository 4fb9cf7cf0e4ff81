"""Telling another system over HTTP what happened: one signed POST, tried a few times.

`X-Violence-Ops-Signature: sha256=<hex>` is the HMAC-SHA256 of the body's bytes under the shared secret, and
`X-Violence-Ops-Delivery` names the event, so that a receiver can leave out what it has had. The address may carry a token and the
secret is one: neither is ever in a message.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from dataclasses import dataclass, field
from typing import ClassVar, Final
from urllib.parse import urlsplit

import httpx

from violence_ops.deployment import RELEASE, Occasion, is_http
from violence_ops.errors import ServiceUnavailable, UsageError

SIGNATURE: Final = "X-Violence-Ops-Signature"
DELIVERY: Final = "X-Violence-Ops-Delivery"
PAUSES_S: Final = (0.5, 2.0, 5.0)
"""Between the tries of one delivery."""
_TIMEOUT_S: Final = 5.0  # of a whole try: the receiver does not decide how long a release takes


@dataclass(frozen=True, slots=True)
class Webhook:
    """An address that is told, and the secret that signs what it is told."""

    name: ClassVar[str] = "webhook"
    url: str = field(repr=False)
    secret: str = field(repr=False)
    occasion: Occasion = RELEASE

    def __post_init__(self) -> None:
        """Raise UsageError if nothing could be delivered safely."""
        setting = f"{self.occasion.settings}_WEBHOOK"
        if not is_http(self.url):
            raise UsageError(f"{setting}_URL is no address: write https://HOST/PATH.")
        if not self.secret:
            raise UsageError(
                f"{setting}_URL is set but {setting}_SECRET is not: set it to what the receiver checks signatures with."
            )

    @property
    def host(self) -> str:
        """What may be said of the address."""
        return urlsplit(self.url).hostname or ""

    def deliver(self, delivery: str, body: bytes) -> None:
        """POST `body`, which is JSON; any 2xx is success. A redirect is not followed.

        Raises ServiceUnavailable after the last try, or at once where another try cannot help: 4xx but 408 and 429, and a proxy or
        certificates of the environment that cannot be used.
        """
        headers = {"Content-Type": "application/json", DELIVERY: delivery, SIGNATURE: signature(self.secret, body)}
        problem = ""
        for pause in (*PAUSES_S, None):
            try:
                status = asyncio.run(_posted(self.url, body, headers))
            except (httpx.HTTPError, httpx.InvalidURL, TimeoutError) as error:
                problem = type(error).__name__  # its text may hold the address
            except (ImportError, OSError, ValueError) as error:
                problem = f"{type(error).__name__}, by the environment's proxy or certificates"
                break
            else:
                if 200 <= status < 300:
                    return
                problem = f"status {status}"
                if status < 500 and status not in (408, 429):
                    break
            if pause is not None:
                time.sleep(pause)
        raise ServiceUnavailable(
            f"The webhook at {self.host} did not take {self.occasion.told} ({problem}): fix it{self.occasion.afterwards}."
        )


async def _posted(url: str, body: bytes, headers: dict[str, str]) -> int:
    """The status that a POST is answered with, however slowly the rest of the answer would come. Raises TimeoutError."""
    async with (
        asyncio.timeout(_TIMEOUT_S),
        httpx.AsyncClient(timeout=None, follow_redirects=False) as client,
        client.stream("POST", url, content=body, headers=headers) as answer,
    ):
        return answer.status_code


def signature(secret: str, body: bytes) -> str:
    """`sha256=` and the HMAC-SHA256 of `body`, hex; a receiver compares it in constant time."""
    return f"sha256={hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()}"
