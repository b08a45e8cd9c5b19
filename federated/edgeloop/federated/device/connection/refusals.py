"""What a failed call to the server means for a device: refused for good, or to be tried again."""

from __future__ import annotations

import email.utils
import json
import ssl
import time
from typing import Any

import httpx

from edgeloop.errors import DeviceError, EdgeloopError, IntegrityError, one_line
from edgeloop.federated.device.connection.link import Link

VERSION, NO_KEY, NOT_ACTIVATED = 1001, 2001, 2004  # Flower's ApiErrorCode
TRANSIENT = (httpx.codes.REQUEST_TIMEOUT, httpx.codes.TOO_MANY_REQUESTS)  # of a proxy, say: a later try may pass
REGISTER = (
    "The owner of the server registers the public key, FILE.pub: in the folder of [network] device-keys, or with flwr "
    "supernode register."
)
SKEW_S = 10.0  # by which two clocks may differ; Flower takes a signature of the last 10 s


def refusal(error: BaseException, link: Link, *, joined: bool) -> EdgeloopError | None:
    """The error that ends the device; None: what failed may work again later.

    Args:
        joined: Whether the device was in this fleet before. A certificate that was good once and is not now may be of
            a hotel's network, so the device waits.
    """
    if isinstance(error, httpx.HTTPStatusError):
        return _by_status(error.response, link, joined)
    wrong = _certificate_error(error)
    if wrong is None or joined:
        return None
    advice = "Pass the root certificate of the server's owner: --root-certificate FILE."
    if "expired" in wrong or "not yet valid" in wrong:
        advice = "Renew the server's certificate, and check the clock of this device."
    return IntegrityError(f"the certificate of {link.address} is refused: {wrong}", advice=advice)


def reason(error: BaseException) -> str:
    """Why a call failed, for a person."""
    wrong = _certificate_error(error)
    if wrong is not None:
        return f"its certificate is refused: {wrong}"
    return one_line(str(error) or type(error).__name__, 200)


def _by_status(response: httpx.Response, link: Link, joined: bool) -> EdgeloopError | None:
    code, said = _flower_error(response)
    if code == NO_KEY:
        return DeviceError(
            f"{link.address} takes registered keys only, and this device shows none",
            advice=f"Pass --key FILE. {REGISTER}",
        )
    if code == NOT_ACTIVATED and joined:
        return DeviceError(
            f"{link.address} no longer takes the key {link.key}: it was unregistered, or another process uses it",
            advice=REGISTER,
        )
    if code == NOT_ACTIVATED:
        return DeviceError(
            f"{link.address} does not take the key {link.key}: it is not registered there, was unregistered, or "
            "another process joined with it less than a minute ago",
            advice=REGISTER,
        )
    if code == VERSION:
        return DeviceError(f"{link.address} has another Flower: {said}", advice="Install the server's version here.")
    if response.status_code == httpx.codes.UNAUTHORIZED:
        return _unauthorized(response, link, joined)
    if response.is_server_error or response.status_code in TRANSIENT or joined:
        return None
    return DeviceError(
        f"{link.address} answers HTTP {response.status_code}: {said}", advice="Expected the address of a SuperLink."
    )


def _unauthorized(response: httpx.Response, link: Link, joined: bool) -> EdgeloopError | None:
    skew = _clock_skew_s(response)
    if abs(skew) > SKEW_S:
        return DeviceError(
            f"the clock of this device is {abs(skew):.0f} s {'ahead of' if skew > 0 else 'behind'} that of "
            f"{link.address}, which takes no such signatures",
            advice="Set the clock, e.g. with NTP.",
        )
    if link.key is None or joined:  # a server that was started anew knows no node: take a place there again
        return None
    return DeviceError(
        f"{link.address} does not take the key {link.key}: it is not registered there, or was unregistered",
        advice=REGISTER,
    )


def _clock_skew_s(response: httpx.Response) -> float:
    """How far this clock is ahead of the server's, by its answer; 0 where that does not say."""
    try:
        return time.time() - email.utils.parsedate_to_datetime(response.headers["date"]).timestamp()
    except (KeyError, ValueError, TypeError):
        return 0.0


def _flower_error(response: httpx.Response) -> tuple[int, str]:
    """Flower's code and sentence; 0 where it is not Flower that answers."""
    try:
        found: Any = json.loads(response.text)
    except ValueError:
        found = None
    if not isinstance(found, dict):
        return 0, one_line(response.text, 200)
    code = found.get("code")
    return code if isinstance(code, int) else 0, one_line(found.get("extra") or found.get("detail") or "", 200)


def _certificate_error(error: BaseException | None) -> str | None:
    """OpenSSL's words for what is wrong with a certificate, somewhere in the causes of an exception."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, ssl.SSLCertVerificationError):
            return one_line(error.verify_message, 200)
        error = error.__cause__ or error.__context__
    return None
