"""The files of a relay are looked at before anything connects, and what is wrong is one line."""

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import trustme

from geomail.config import load, require_relays
from geomail.errors import ConfigError
from geomail.relays import Relay, check_files, parse_relay_url, read_token


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a folder with an authority, a certificate, its key, both in one, and another's key."""
    folder = tmp_path_factory.mktemp("files")
    authority = trustme.CA()
    issued, other = (authority.issue_cert(name) for name in ("a.example", "b.example"))
    authority.cert_pem.write_to_path(folder / "ca.pem")
    issued.cert_chain_pems[0].write_to_path(folder / "cert.pem")
    issued.private_key_pem.write_to_path(folder / "key.pem")
    issued.private_key_and_cert_chain_pem.write_to_path(folder / "both.pem")
    other.private_key_pem.write_to_path(folder / "other.pem")
    (folder / "text.pem").write_text("no PEM\n")
    (folder / "empty").write_text("")
    broken = (folder / "cert.pem").read_text().replace("M", "!")
    (folder / "broken.pem").write_text(broken)
    return folder


def relay(folder: Path, **files: str) -> Relay:
    member = parse_relay_url("smtps://ann@mail.example.com")
    paths = {key: str(folder / name) for key, name in files.items()}
    return Relay("bulk", (member,), **paths)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "files",
    [
        {},
        {"ca_file": "ca.pem"},
        {"cert_file": "cert.pem", "key_file": "key.pem"},
        {"cert_file": "both.pem"},
    ],
)
def test_files_that_can_be_used(folder: Path, files: dict[str, str]) -> None:
    check_files(relay(folder, **files))


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"ca_file": "none"}, "ca_file of relay bulk: can't read DIR/none: No such file"),
        ({"ca_file": "."}, "ca_file of relay bulk: can't read DIR: Is a directory"),
        ({"ca_file": "text.pem"}, "ca_file of relay bulk: DIR/text.pem holds no certificate"),
        ({"ca_file": "key.pem"}, "ca_file of relay bulk: DIR/key.pem holds no certificate"),
        ({"cert_file": "none"}, "cert_file of relay bulk: can't read DIR/none"),
        ({"cert_file": "key.pem"}, "cert_file of relay bulk: DIR/key.pem holds no certificate"),
        ({"cert_file": "cert.pem"}, "cert_file of relay bulk: DIR/cert.pem holds no private key"),
        (
            {"cert_file": "cert.pem", "key_file": "none"},
            "key_file of relay bulk: can't read DIR/none",
        ),
        (
            {"cert_file": "cert.pem", "key_file": "ca.pem"},
            "key_file of relay bulk: DIR/ca.pem holds no private key",
        ),
        (
            {"cert_file": "cert.pem", "key_file": "other.pem"},
            "cert_file of relay bulk: DIR/cert.pem: the key in DIR/other.pem belongs to another",
        ),
        (
            {"cert_file": "broken.pem", "key_file": "key.pem"},
            "cert_file of relay bulk: DIR/broken.pem: ",
        ),
        ({"token_file": "none"}, "token_file of relay bulk: can't read DIR/none"),
        ({"token_file": "empty"}, "token_file of relay bulk: DIR/empty is empty"),
        ({"token_file": "text.pem"}, "token_file of relay bulk: DIR/text.pem must hold the token"),
    ],
)
def test_a_file_that_cannot_be_used_is_one_line(
    folder: Path, files: dict[str, str], said: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        check_files(relay(folder, **files))
    assert str(raised.value).startswith(said.replace("DIR", str(folder)))
    assert "\n" not in str(raised.value)


def test_a_key_behind_a_passphrase_is_refused_and_asks_nobody(
    folder: Path, tmp_path: Path, needs_program: Callable[[str], str]
) -> None:
    openssl, key = needs_program("openssl"), str(folder / "key.pem")
    encrypt = [openssl, "pkey", "-in", key, "-aes256", "-passout", "pass:x", "-out"]
    subprocess.run([*encrypt, str(tmp_path / "key.pem")], check=True, timeout=30)
    made = Relay(
        "bulk",
        relay(folder).members,
        cert_file=str(folder / "cert.pem"),
        key_file=str(tmp_path / "key.pem"),
    )
    with pytest.raises(ConfigError, match=r"^key_file of relay bulk: .* is behind a passphrase"):
        check_files(made)


def test_a_token_is_read_as_it_is_now(tmp_path: Path) -> None:
    made = relay(tmp_path, token_file="token")
    for content, token in (("ya29.a-b_c/d~e+f=\n", "ya29.a-b_c/d~e+f="), ("  next\r\n", "next")):
        (tmp_path / "token").write_text(content)
        assert read_token(made) == token


@pytest.mark.parametrize("content", ["two words", "a\nb", "a\x01b", "ä", "x" * 20_000])
def test_what_is_no_token_is_refused_and_not_repeated(tmp_path: Path, content: str) -> None:
    (tmp_path / "token").write_text(content)
    with pytest.raises(ConfigError, match="must hold the token alone, in one line") as raised:
        read_token(relay(tmp_path, token_file="token"))
    assert content not in str(raised.value)


@pytest.mark.parametrize("key", ["token_file", "cert_file", "key_file"])
@pytest.mark.parametrize(
    "secret",
    [
        "ya29.a0AfH6SMBsecret-token-value_1234567890",
        "-----BEGIN PRIVATE KEY----- MIIEvQ/IBADANBg+q",
    ],
)
def test_a_secret_in_the_place_of_its_file_is_not_repeated(
    folder: Path, key: str, secret: str
) -> None:
    files = {"cert_file": str(folder / "cert.pem")} if key == "key_file" else {}
    made = Relay("bulk", relay(folder).members, **{**files, key: secret})  # type: ignore[arg-type]
    with pytest.raises(
        ConfigError, match=rf"^{key} of relay bulk: can't read .*…: No such"
    ) as raised:
        check_files(made)
    assert secret[8:20] not in str(raised.value)


def test_a_name_of_a_file_is_repeated(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    for path in ("token", f"{folder}/" + "x" * 100):
        made = Relay("bulk", relay(folder).members, token_file=path)
        with pytest.raises(ConfigError, match=rf"can't read {path}: No such"):
            check_files(made)


def test_files_are_checked_where_relays_are_required_and_not_before(tmp_path: Path) -> None:
    """A person who only asks for the status need not be able to read a key."""
    place = tmp_path / "geomail.toml"
    place.write_text(f"[relay.default]\nurl = 'smtps://ann@h'\ntoken_file = '{tmp_path}/token'\n")
    settings = load({}, {}, places=[place])
    with pytest.raises(ConfigError, match=r"^token_file of relay default: can't read "):
        require_relays(settings)
    (tmp_path / "token").write_text("abc\n")
    require_relays(settings)  # a token is a whole login
