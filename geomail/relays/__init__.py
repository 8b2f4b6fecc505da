"""Where mail goes: relays, each one or several hosts in the order in which they are tried.

    url       one host: what its URL says, the login included
    relay     hosts under one name, with what their owner has decided for them all
    routing   which relay takes whose mail: [[route]] in the file
    table     relays of what file, variables and flags say together
    limits    what its owner allows himself there
    files     the files that a relay names: checked before anything connects, a token read

What a table entrusts to its own hosts (a password, a token, `verify = false`, `auth_in_clear`) is
for no host that a flag or a variable names in their place. A secret stands in no repr, and no error
repeats what could be one. Nothing here opens a connection, and only `files` reads files.
"""

from geomail.relays.files import check_files, read_token
from geomail.relays.limits import Limits, Rate, SiteLimits
from geomail.relays.relay import Chunking, Pipeline, Relay
from geomail.relays.routing import Routing, Rule, read_routing, routes_shown
from geomail.relays.table import KEYS, Reader, keys_table
from geomail.relays.url import (
    VARIABLES,
    Member,
    Tls,
    is_password_variable,
    parse_relay_url,
    password_variable,
)

__all__ = [
    "KEYS",
    "VARIABLES",
    "Chunking",
    "Limits",
    "Member",
    "Pipeline",
    "Rate",
    "Reader",
    "Relay",
    "Routing",
    "Rule",
    "SiteLimits",
    "Tls",
    "check_files",
    "is_password_variable",
    "keys_table",
    "parse_relay_url",
    "password_variable",
    "read_routing",
    "read_token",
    "routes_shown",
]
