"""Every setting of geomail, once: type, default, unit, help, flag; and where its value comes from.

The fields of `Settings` are the one truth. From them derive the names in geomail.toml, the
variables GEOMAIL_<NAME>, what a flag means, and the table in the README. A flag goes over a
variable, that over the file (`--config`, else ./geomail.toml, else /etc/geomail/geomail.toml), that
over the default. What can't be used raises ConfigError: one line that names the place and what is
allowed there, for an unknown name the nearest one. What relays and routes are, geomail.relays
knows.

A password never stands in a message, nor in the repr of anything. Nothing here opens a connection.
"""

from geomail.config.commands import Command
from geomail.config.loading import CHILD_VARIABLE, PLACES, load, require_relays
from geomail.config.setting import Setting
from geomail.config.settings import SETTINGS, Settings, default_data_dir
from geomail.config.table import default_text, settings_table
from geomail.relays import Member, Relay, parse_relay_url

__all__ = [
    "CHILD_VARIABLE",
    "PLACES",
    "SETTINGS",
    "Command",
    "Member",
    "Relay",
    "Setting",
    "Settings",
    "default_data_dir",
    "default_text",
    "load",
    "parse_relay_url",
    "require_relays",
    "settings_table",
]
