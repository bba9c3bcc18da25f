"""Replicas of the botify profile: what compose says fits what the service reads and what nginx accepts."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from service.settings import Settings

DEPLOY = Path(__file__).resolve().parents[3] / "deploy"
CONF = DEPLOY / "nginx" / "botify.conf"


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    document = yaml.safe_load((DEPLOY / "docker-compose.botify.yml").read_text())
    found: dict[str, Any] = document["services"]
    return found


def test_recommenders_can_be_scaled(services: dict[str, Any]) -> None:
    recommender = services["recommender"]
    assert not {"container_name", "ports", "hostname"} & set(
        recommender
    )  # any of them allows one replica only
    assert recommender["command"][:2] == ["reco", "serve"]
    assert "server recommender:5001;" in CONF.read_text()
    assert services["nginx"]["ports"] == ["127.0.0.1:5001:5001"]


def test_its_settings_exist(services: dict[str, Any]) -> None:
    names = {name.removeprefix("RECO_").lower() for name in services["recommender"]["environment"]}
    assert names - {"port"} <= set(Settings.model_fields)
    assert services["recommender"]["environment"]["RECO_REDIS_URL"] == "redis://redis:6379"


@pytest.mark.parametrize("name", ["recommender", "nginx", "redis"])
def test_no_container_can_write_its_root_or_gain_rights(services: dict[str, Any], name: str) -> None:
    service = services[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]


def test_mounted_files_are_there(services: dict[str, Any]) -> None:
    for mount in services["nginx"]["volumes"]:
        assert (DEPLOY / mount.split(":")[0]).is_file()


def test_nginx_accepts_its_configuration(tmp_path: Path, component: Callable[[str, str], str]) -> None:
    nginx = component("nginx", "apt-get install nginx")
    conf = tmp_path / "nginx.conf"
    text = CONF.read_text().replace("server recommender:5001", "server 127.0.0.1:5001")
    conf.write_text(text.replace("/" + "tmp/nginx", str(tmp_path / "nginx")))
    done = subprocess.run([nginx, "-t", "-c", str(conf)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
