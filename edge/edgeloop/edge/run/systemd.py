"""What `serve --service-location` says of a device in, the text of a systemd unit that serves there out.

Source: https://www.freedesktop.org/software/systemd/man/latest/systemd.service.html, systemd.exec.html
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from edgeloop.edge.run.options import RunOptions
from edgeloop.errors import OptionsError
from edgeloop.http.base_server import LOOPBACK

OWN_BYTES = 128 << 20  # of the program itself, beside its models: some 40 MB were measured


def unit_name(where: Mapping[str, Any]) -> str:
    """`edgeloop-SLOT.service`, of characters that a unit's name may have."""
    name = where["slot"] or where["bundle"].rstrip("/").rpartition("/")[2]
    return f"edgeloop-{re.sub(r'[^A-Za-z0-9_.-]', '_', name)}.service"


def unit(where: Mapping[str, Any], options: RunOptions) -> str:
    """A service that starts with the machine, says when it is ready, is watched, and is restarted when it dies.

    Raises:
        OptionsError: Its inputs come on standard input, which a service has not.
    """
    if options.stdin:
        raise OptionsError("a service has no standard input", advice="Add --http PORT, --input camera or --input DIR.")
    what = [f"--slot={where['slot']}"] if where["slot"] else [f"--bundle={where['bundle']}"]
    own = [word for word in options.arguments() if not word.startswith("--slot=")]
    command = [where["python"], "-I", where["program"], "edge.on_device.serving.serve", *what, *own]
    service = [
        "Type=notify",
        f"User={_text(where['user'])}",
        f"WorkingDirectory={_text(where['home'])}",  # one path, taken as it stands: quotes would be part of it
        f"Environment={_word('EDGELOOP_HOME=' + where['home'])}",
        # of these settings only a command expands variables
        f"ExecStart={' '.join(map(_word, command)).replace('$', '$$')}",
        "Restart=on-failure",
        "RestartSec=2",
        f"TimeoutStartSec={4 * options.timeout_s:g}",
        "TimeoutStopSec=20",
        "WatchdogSec=60",
        "# the program ends its models itself, once the requests in flight are answered",
        "KillMode=mixed",
        *_hardening(where, options),
        *_memory(where, options),
    ]
    title = where["slot"] or where["bundle"]
    head = [f"Description=edgeloop: serves {_text(title)}", "StartLimitIntervalSec=300", "StartLimitBurst=5"]
    if options.pull and options.pull.address.is_url:
        head += ["Wants=network-online.target", "After=network-online.target"]
    sections = {"Unit": head, "Service": service, "Install": ["WantedBy=multi-user.target"]}
    return "\n".join(f"[{name}]\n" + "\n".join(lines) + "\n" for name, lines in sections.items())


def _hardening(where: Mapping[str, Any], options: RunOptions) -> list[str]:
    camera = ["SupplementaryGroups=video"] if options.camera else ["PrivateDevices=yes"]
    # even a model that takes over the program reaches no other machine
    alone = options.host == LOOPBACK and not (options.pull and options.pull.address.is_url)
    network = ["IPAddressDeny=any", "IPAddressAllow=localhost"] if alone else []
    return [
        "NoNewPrivileges=yes",
        "CapabilityBoundingSet=",
        "ProtectSystem=strict",
        "ProtectHome=read-only",
        f"ReadWritePaths={_word(where['home'])}",
        "PrivateTmp=yes",
        "ProtectKernelTunables=yes",
        "ProtectKernelModules=yes",
        "ProtectControlGroups=yes",
        "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6",
        "RestrictNamespaces=yes",
        "RestrictRealtime=yes",
        "RestrictSUIDSGID=yes",
        "LockPersonality=yes",
        "SystemCallArchitectures=native",
        *camera,
        *network,
    ]


def _memory(where: Mapping[str, Any], options: RunOptions) -> list[str]:
    """While one release takes over from another, two models are loaded; a third where the service itself tries the new
    one, beside the program that does. Nothing where the need is unknown."""
    need = where["ram_bytes"]
    models, programs = (3, 2) if options.pull else (2, 1)
    return [f"MemoryMax={models * need + programs * OWN_BYTES}"] if need else []


def _word(text: str) -> str:
    """One word of a list, whatever is in it."""
    escaped = _text(text).replace("\\", "\\\\").replace('"', '\\"')
    return escaped if re.fullmatch(r"[\w@%+=:,./-]+", escaped) else f'"{escaped}"'


def _text(text: str) -> str:
    """What no specifier of systemd (%h, %i) is found in. Raises OptionsError where a line cannot hold it."""
    if re.search(r"[\x00-\x1f]", text):
        raise OptionsError(f"{text!r} has control characters, which a unit file cannot hold", advice="Rename it.")
    return text.replace("%", "%%")
