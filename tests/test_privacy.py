"""How agents are named."""

import hashlib
import hmac

import pytest

from exporter.model import Agent
from exporter.privacy import agent_names

AGENT = Agent("id", "anna-laptop", "Windows", "1.2", "11", "Zürich", 5.0)
NAMELESS = Agent("id", "")


def test_a_plain_name_is_shown():
    assert agent_names("plain")(AGENT) is AGENT


def test_a_hidden_name_takes_nothing_else_with_it():
    assert agent_names("off")(AGENT) == Agent("id", "", "Windows", "1.2", "11", "Zürich", 5.0)


def test_a_hashed_name_is_a_short_keyed_hash_and_the_rest_stays():
    expected = hmac.new("a long secret ü".encode(), b"anna-laptop", hashlib.sha256).hexdigest()[:16]
    assert agent_names("hashed", "a long secret ü")(AGENT) == Agent(
        "id", expected, "Windows", "1.2", "11", "Zürich", 5.0
    )


def test_another_key_gives_another_hash():
    assert agent_names("hashed", "one")(AGENT) != agent_names("hashed", "two")(AGENT)


@pytest.mark.parametrize("mode", ["plain", "hashed", "off"])
def test_an_agent_without_a_name_has_none_in_any_mode(mode):
    assert agent_names(mode, "key")(NAMELESS) == NAMELESS
