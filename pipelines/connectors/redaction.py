"""Take secrets out of a text before anyone reads it: messages, events, log lines, addresses."""

import json
import re
from base64 import b64encode
from collections.abc import Iterable
from urllib.parse import quote, quote_plus

MASK = "***"

#: Shorter "secrets" would mask half of every sentence, and nobody is protected by three characters.
SHORTEST = 4

_NAME = r"[\w$%.~-]*(?:token|secret|passw|pwd|api_?-?key|access_?-?key|signature|credential|session|authorization)[\w.~-]*"
_SHORT_NAME = r"(?:key|sig|auth|jwt)"

_RULES = (
    # user:password@host, in any address
    (re.compile(r"(?i)\b([a-z][a-z0-9+.-]*://)[^/\s\"'<>?#]*@"), rf"\1{MASK}@"),
    # ?token=…  &sig=…
    (re.compile(rf"(?i)([?&;](?:{_NAME}|{_SHORT_NAME})=)[^&\s\"'<>#]+"), rf"\1{MASK}"),
    # Authorization: Basic …   X-App-Token: …   "password": "…"   api_key=…
    # (only from where a name begins: a long address, percent by percent, would be looked through as often as it is long)
    (
        re.compile(rf"(?i)(?<![\w$%.~?&;-])([\"']?{_NAME}[\"']?\s*[:=]\s*[\"']?)(?:(?:basic|bearer|token|oauth)\s+)?[^\s\"',;&}})\]]+"),
        rf"\1{MASK}",
    ),
    # a bare "Bearer eyJ…"
    (re.compile(r"(?i)\b(basic|bearer)\s+[A-Za-z0-9+/=._~-]{16,}"), rf"\1 {MASK}"),
)


class Redactor:
    """Masks what looks like a secret, and every literal secret that it was told of, in each spelling a URL or JSON gives it."""

    def __init__(self, secrets: Iterable[str] = ()):
        self._literals: frozenset[str] = frozenset()
        self.learn(*secrets)

    def learn(self, *secrets: str) -> None:
        """Mask these too from now on."""
        spellings = set(self._literals)
        for secret in secrets:
            if secret and len(secret) >= SHORTEST:
                spellings |= {
                    secret,
                    quote(secret, safe=""),
                    quote(secret),
                    quote_plus(secret),
                    json.dumps(secret)[1:-1],
                    b64encode(secret.encode()).decode(),
                }
        # a new set, not an update: pages in flight redact while another thread teaches
        self._literals = frozenset(spellings)

    def __call__(self, text: str) -> str:
        # the longest first: a secret that contains another must go whole
        for literal in sorted(self._literals, key=len, reverse=True):
            text = text.replace(literal, MASK)
        for pattern, replacement in _RULES:
            text = pattern.sub(replacement, text)
        return text
