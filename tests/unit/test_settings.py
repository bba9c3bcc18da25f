from __future__ import annotations

import json
from pathlib import Path

import pytest

from service.commands.config import run, unknown_variables
from service.errors import InputError
from service.settings import Settings, describe, load_settings


@pytest.fixture(autouse=True)
def bare_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for field in Settings.model_fields:
        monkeypatch.delenv(f"RECO_{field.upper()}", raising=False)
    for name in ("HOST", "PORT", "LOG_LEVEL", "K_RECS"):
        monkeypatch.delenv(name, raising=False)


def read(**overrides: object) -> Settings:
    return load_settings(overrides, env_file=None)


def test_template_names_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"HOST": "0.0.0.0", "PORT": "9000", "LOG_LEVEL": "warning", "K_RECS": "7"}.items():
        monkeypatch.setenv(name, value)
    settings = read()
    assert (settings.host, settings.port, settings.log_level, settings.k) == ("0.0.0.0", 9000, "WARNING", 7)


def test_sources_win_in_the_promised_order(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PORT", "1")
    assert read().port == 1
    file = tmp_path / ".env"
    file.write_text("RECO_PORT=2\nUNRELATED=x\n")
    assert load_settings(env_file=file).port == 2
    monkeypatch.setenv("RECO_PORT", "3")
    assert load_settings(env_file=file).port == 3
    assert load_settings({"port": 4}, env_file=file).port == 4
    assert load_settings({"port": None}, env_file=file).port == 3


def test_defaults_are_the_documented_ones() -> None:
    settings = read()
    assert (settings.port, settings.k, settings.budget_ms, settings.max_user_id) == (8080, 10, 50, 10**9)
    assert settings.auth
    assert settings.cors_origins == {"*"}


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("RECO_PORT", "http"),
        ("RECO_PORT", "65536"),
        ("PORT", "-1"),
        ("K_RECS", "0"),
        ("RECO_BUDGET_MS", "nan"),
        ("RECO_BUDGET_MS", "inf"),
        ("RECO_BUDGET_MS", "0"),
        ("RECO_AUTH", "perhaps"),
        ("RECO_MISSING_TOKEN_STATUS", "402"),
        ("RECO_CHECK_ORDER", "model,user,token"),
        ("RECO_PROFILES", "mts,unheard-of"),
        ("RECO_RETRIEVER", "annoy"),
        ("RECO_LOG_LEVEL", "LOUD"),
        ("RECO_WORKERS", "-2"),
    ],
)
def test_a_bad_value_is_named_with_its_variable(
    monkeypatch: pytest.MonkeyPatch, variable: str, value: str
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(InputError, match=rf"^{variable}={value}: "):
        read()


def test_a_bad_flag_is_named_as_a_flag() -> None:
    with pytest.raises(InputError, match=r"^--budget-ms=soon: "):
        read(budget_ms="soon")
    with pytest.raises(InputError, match="no setting 'prot'"):
        read(prot=1)


def test_every_fault_is_named_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECO_PORT", "x")
    monkeypatch.setenv("RECO_K", "y")
    with pytest.raises(InputError, match=r"RECO_PORT=x: .*; RECO_K=y: "):
        read()


def test_k_above_k_max_is_refused() -> None:
    with pytest.raises(InputError, match="RECO_K=30 is above RECO_K_MAX=20"):
        read(k=30, k_max=20)


def test_an_empty_variable_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECO_PORT", "")
    monkeypatch.setenv("K_RECS", "")
    assert (read().port, read().k) == (8080, 10)


def test_lists_are_words_by_commas(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECO_PROFILES", " mts , handbook,")
    monkeypatch.setenv("RECO_CORS_ORIGINS", "https://a.example,https://b.example")
    assert read().profiles == {"mts", "handbook"}
    assert read().cors_origins == {"https://a.example", "https://b.example"}


def test_botify_is_found_where_its_clients_look_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RECO_PROFILES", "mts,botify")
    assert (read().port, read().workers) == (5001, 1)
    assert (read(port=7000).port, read(workers=3).workers) == (7000, 3)
    monkeypatch.setenv("PORT", "6000")
    monkeypatch.setenv("RECO_REDIS_URL", "redis://localhost")
    assert (read().port, read().workers) == (6000, 0)
    monkeypatch.setenv("RECO_PROFILES", "mts")
    monkeypatch.delenv("PORT")
    assert read().port == 8080


def test_settings_are_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        read().port = 1


def test_secrets_are_in_no_print_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    secret = "s3cr3t-Zq81nWvT0x"
    monkeypatch.setenv("RECO_TOKENS", f"shop:{secret}")
    settings = read()
    for text in (repr(settings), str(settings), json.dumps(describe(settings)), settings.model_dump_json()):
        assert secret not in text


def test_config_prints_effective_settings_masked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RECO_TOKENS", "shop:s3cr3t-Zq81nWvT0x")
    monkeypatch.setenv("RECO_PROFILES", "mts")
    assert run(None) == 0  # type: ignore[arg-type]
    out, err = capsys.readouterr()
    printed = json.loads(out)
    assert printed["profiles"] == ["mts"]
    assert set(printed) == set(Settings.model_fields)
    assert all(f"RECO_{field.upper()}" in err for field in Settings.model_fields)
    assert "s3cr3t" not in out + err


def test_a_misspelt_variable_is_pointed_out() -> None:
    assert unknown_variables({"RECO_BUGDET_MS": "1", "RECO_PORT": "1", "HOME": "/"}) == [
        "RECO_BUGDET_MS is not a setting; did you mean RECO_BUDGET_MS?"
    ]
