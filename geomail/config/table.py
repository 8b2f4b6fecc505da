"""The settings as people read them: the README's table, and defaults in words."""

from geomail.config.setting import Setting
from geomail.config.settings import SETTINGS


def settings_table() -> str:
    """Return the table of all settings in Markdown, for the README."""
    rows = ["| setting | default | flag | |", "|---|---|---|---|"]
    for setting in SETTINGS:
        flag = f"`{setting.flag}`" if setting.flag else ""
        rows.append(f"| `{setting.name}` | {default_text(setting)} | {flag} | {setting.help} |")
    return "\n".join(rows) + "\n"


def default_text(setting: Setting) -> str:
    """Return what stands for the default of `setting` in tables and help."""
    if setting.name == "data":
        return "/var/lib/geomail for root, else $XDG_STATE_HOME/geomail"
    if setting.name == "queue":
        return "queue:email"
    if setting.default is None or setting.default == ():
        return ""
    if isinstance(setting.default, bool):
        return str(setting.default).lower()
    return f"{setting.default} {setting.unit}".strip()
