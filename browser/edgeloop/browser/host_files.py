"""Files of an exported site for the programs that may serve it: what to read first, and the headers."""

from __future__ import annotations

from edgeloop.browser.page_handler import HEADERS, KEPT, REVALIDATED

README = "README.txt"
FIRST_LINE = "A static site, written by edgeloop browse --export."
TEXT = f"""{FIRST_LINE}

Serve this folder at any address, also below a path: every link in it is relative. To look at it here, run in it:

    python3 -m http.server

Without further headers the page works, with a coarser clock and on one thread. With them it is cross-origin isolated,
and browsers keep what lies below assets/, whose names hold hashes:

    _headers     read by Netlify and Cloudflare Pages
    .htaccess    read by Apache, with mod_headers
    nginx.conf   to include in a server block of nginx

Browsers give camera, WebGPU, threads and offline use to pages over https alone (and to http://localhost).
Export again into this folder to replace it; it must hold nothing else then.
"""
SENT = {name: value for name, value in HEADERS.items() if name != "Cache-Control"}
ASSETS = {**SENT, "Cache-Control": KEPT}
OTHERS = {**SENT, "Cache-Control": REVALIDATED}
KINDS = {"application/wasm": "wasm", "text/javascript": "mjs", "application/manifest+json": "webmanifest"}


def host_files() -> dict[str, str]:
    """The texts by their names in the folder of the site."""
    return {README: TEXT, "_headers": _headers(), ".htaccess": _apache(), "nginx.conf": _nginx()}


def _headers() -> str:
    """Both hosts send the headers of all rules that fit an address, and join the values of one header: so only one
    rule that fits says Cache-Control. For what has none both say that browsers are to ask again.

    Sources: https://docs.netlify.com/routing/headers/, https://developers.cloudflare.com/pages/configuration/headers/
    """
    rules = {"/*": SENT, "/assets/*": {"Cache-Control": KEPT}}
    rules.update({path: {"Cache-Control": REVALIDATED} for path in ("/", "/index.html", "/sw.js", "/bundle/*")})
    return "".join(
        f"{path}\n" + "".join(f"  {name}: {value}\n" for name, value in sent.items()) for path, sent in rules.items()
    )


def _apache() -> str:
    types = [f"AddType {kind} .{end}" for kind, end in KINDS.items()]
    sent = [f'Header set {name} "{value}"' for name, value in OTHERS.items()]
    kept = ['<If "%{REQUEST_URI} =~ m#/assets/#">', f'Header set Cache-Control "{KEPT}"', "</If>"]
    return "\n".join([*types, *sent, *kept, "AddOutputFilterByType DEFLATE application/wasm text/javascript", ""])


def _nginx() -> str:
    """Each location has all headers: nginx takes none from outside where a location adds one."""
    types = "".join(f"    {kind} {end};\n" for kind, end in KINDS.items())
    places = {"/": OTHERS, "~ /assets/": ASSETS}
    blocks = [
        f"location {place} {{\n"
        + "".join(f'    add_header {name} "{value}";\n' for name, value in sent.items())
        + "}\n"
        for place, sent in places.items()
    ]
    note = "# Include this in the server block whose root is the folder of the site.\n"
    more = "gzip on;\ngzip_types application/wasm text/javascript text/css application/json;\n"
    return f"{note}include mime.types;\ntypes {{\n{types}}}\n{more}{''.join(blocks)}"
