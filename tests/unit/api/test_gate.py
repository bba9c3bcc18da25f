from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from running import ADMIN_TOKEN, TOKEN

from service.api.auth import ANYBODY, MAX_TOKEN_BYTES, Bearer, Gate, parse_tokens
from service.errors import InputError, NotAuthenticated, NotPermitted, WrongToken
from service.settings import load_settings

OTHER = "Wm4zQ7tY1pK8sD3fGh6j"


def gate(**changes: object) -> Gate:
    return Gate(load_settings({"tokens": f"shop:{TOKEN},ops:{ADMIN_TOKEN}:admin", **changes}, env_file=None))


def test_a_known_token_names_its_caller() -> None:
    caller = gate().admit(Bearer([f"Bearer {TOKEN}".encode()]))
    assert (caller.name, sorted(caller.scopes)) == ("shop", ["reco"])


@pytest.mark.parametrize("scheme", [b"bearer", b"BEARER", b"Bearer"])
def test_the_scheme_is_read_in_any_case(scheme: bytes) -> None:
    assert gate().admit(Bearer([scheme + b"  " + TOKEN.encode() + b" "])).name == "shop"


def test_a_scope_opens_only_its_own_routes() -> None:
    ours = gate()
    assert ours.admit(Bearer([f"Bearer {ADMIN_TOKEN}".encode()]), "admin").name == "ops"
    with pytest.raises(NotPermitted):
        ours.admit(Bearer([f"Bearer {ADMIN_TOKEN}".encode()]), "reco")
    with pytest.raises(NotPermitted):
        ours.admit(Bearer([f"Bearer {TOKEN}".encode()]), "admin")


@pytest.mark.parametrize(
    "headers", [[], [b""], [b"Bearer"], [b"Bearer "], [b"Basic " + TOKEN.encode()], [TOKEN.encode()]]
)
def test_no_bearer_token_is_not_authenticated(headers: list[bytes]) -> None:
    with pytest.raises(NotAuthenticated):
        gate().admit(Bearer(headers))


@pytest.mark.parametrize(
    "headers",
    [
        [b"Bearer " + TOKEN.encode()] * 2,
        [b"Bearer " + TOKEN[:-1].encode()],
        [b"Bearer " + TOKEN.encode() + b"x"],
        [b"Bearer " + TOKEN.swapcase().encode()],
        [b"Bearer \xd1\x82\xd0\xbe\xd0\xba\xff"],
        [b"Bearer " + b"a" * 1_000_000],
        [b"Bearer " + TOKEN.encode().ljust(MAX_TOKEN_BYTES + 1, b"=")],
        [b"Bearer \x00"],
    ],
    ids=["duplicate", "short", "long", "case", "non-ascii", "1 MB", "padded", "nul"],
)
def test_any_other_token_is_wrong(headers: list[bytes]) -> None:
    with pytest.raises(WrongToken):
        gate().admit(Bearer(headers))


@given(
    st.lists(st.binary(max_size=80).map(lambda raw: b"Bearer " + raw) | st.binary(max_size=80), max_size=3)
)
def test_no_made_up_header_is_let_in(headers: list[bytes]) -> None:
    with pytest.raises((NotAuthenticated, WrongToken)):
        gate().admit(Bearer(headers))


def test_only_digests_are_kept() -> None:
    ours = gate()
    assert TOKEN not in repr(ours.callers)
    assert all(TOKEN.encode() not in digest for digest in ours.callers)


def test_a_name_may_hold_two_tokens_while_they_rotate() -> None:
    ours = gate(tokens=f"shop:{TOKEN},shop:{OTHER}")
    assert {ours.admit(Bearer([f"Bearer {token}".encode()])).name for token in (TOKEN, OTHER)} == {"shop"}


def test_auth_off_lets_everybody_in_without_tokens() -> None:
    ours = Gate(load_settings({"auth": False}, env_file=None))
    assert ours.admit(Bearer([])) is ANYBODY


@pytest.mark.parametrize(
    ("tokens", "complaint"),
    [
        (None, "there is no token"),
        ("", "there is no token"),
        (",", "there is no token"),
        (TOKEN, "entry 1: not 'name:token'"),
        (f"shop:{TOKEN},:{OTHER}", "entry 2: not 'name:token'"),
        ("shop:", r"entry 1 \(shop\): the token is empty"),
        ("shop:short", "shorter than 16"),
        ("shop:change-me-change-me", "looks like a placeholder"),
        ("shop:YOUR_TOKEN_GOES_HERE", "looks like a placeholder"),
        ("shop:aaaaaaaaaaaaaaaaaaaaaaaa", "looks like a placeholder"),
        ("shop:пароль-пароль-пароль", "made of letters, digits"),
        ("shop:two words and a space", "made of letters, digits"),
        (f"shop:{TOKEN}:root", "unknown scope in 'root'"),
        (f"shop:{TOKEN},app:{TOKEN}", "given to 'shop' already"),
    ],
)
def test_tokens_that_are_not_fit_are_refused_at_start(tokens: str | None, complaint: str) -> None:
    with pytest.raises(InputError, match=complaint) as refused:
        gate(tokens=tokens)
    assert TOKEN not in str(refused.value)


def test_a_file_of_tokens_is_read_with_comments_and_joins_the_variable(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"# callers\n\napp:{OTHER}:reco|admin\n")
    ours = gate(tokens_file=file)
    assert ours.admit(Bearer([f"Bearer {OTHER}".encode()]), "admin").name == "app"
    assert ours.admit(Bearer([f"Bearer {TOKEN}".encode()])).name == "shop"


def test_a_missing_token_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"RECO_TOKENS_FILE: .*absent"):
        gate(tokens_file=tmp_path / "absent")


def test_tokens_rotate_when_the_file_changes_and_survive_a_bad_one(tmp_path: Path) -> None:
    file = tmp_path / "tokens"
    file.write_text(f"app:{TOKEN}\n")
    ours = Gate(load_settings({"tokens_file": file}, env_file=None))
    assert not ours.refresh()

    replace(file, f"app:{OTHER}\n")
    assert ours.refresh()
    assert ours.admit(Bearer([f"Bearer {OTHER}".encode()])).name == "app"
    with pytest.raises(WrongToken):
        ours.admit(Bearer([f"Bearer {TOKEN}".encode()]))

    for unfit in ("app:short\n", "\n", "\xff\xfe"):
        replace(file, unfit)
        with pytest.raises(InputError):
            ours.refresh()
        assert ours.admit(Bearer([f"Bearer {OTHER}".encode()])).name == "app"
        assert not ours.refresh()
    file.unlink()
    with pytest.raises(InputError):
        ours.refresh()
    assert ours.admit(Bearer([f"Bearer {OTHER}".encode()])).name == "app"


def replace(file: Path, text: str) -> None:
    draft = file.with_suffix(".new")
    draft.write_text(text, "latin-1")
    draft.replace(file)


@given(st.text(max_size=60))
def test_any_text_is_read_or_refused_with_a_message(text: str) -> None:
    try:
        callers = parse_tokens(text.split(","), "RECO_TOKENS")
    except InputError as error:
        message = str(error)
    else:
        message = ""
        assert all(len(digest) == 32 for digest in callers)
    assert message == "" or message.startswith("RECO_TOKENS, entry ")
