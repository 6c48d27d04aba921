"""Settings stated once: what a field says is what is checked, published, documented and amended."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fairmend.errors import InputError
from fairmend.settings import Setting, amended, check, documented, nested, option_of, published, setting, settings_of


@documented
@dataclass(frozen=True)
class Inner:
    """How it is drawn."""

    tokens: int | None = setting(20, "tokens of each; see --share.", least=1, none="all", published=40)
    share: float = setting(0.5, "of all.", above=0, most=1)

    def __post_init__(self) -> None:
        check(self)


@documented
@dataclass(frozen=True)
class Outer:
    """How it is done."""

    method: str = setting("slow", "of doing it.", choices=("slow", "fast"))
    states: int | str | None = setting("auto", "to try.", kind=int, least=1, none="none")
    inner: Inner = nested(Inner, tokens=5)

    def __post_init__(self) -> None:
        check(self)


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ({"method": "quick"}, "method must be one of 'slow', 'fast', got 'quick'"),
        ({"states": 0}, "states must be at least 1, got 0"),
        ({"states": 1.5}, "states must be a whole number of at least 1, got 1.5"),
        ({"states": "many"}, "states must be a whole number of at least 1, got 'many'"),
    ],
)
def test_a_value_outside_its_limits_is_refused_by_name(value: dict[str, object], said: str) -> None:
    with pytest.raises(InputError, match=said):
        Outer(**value)  # type: ignore[arg-type]


def test_auto_and_none_are_values_only_where_the_field_says_so() -> None:
    assert (Outer().states, Outer(states=None).states) == ("auto", None)
    with pytest.raises(InputError, match=r"method must be one of .*, got None"):
        Outer(method=None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"share must lie in \(0, 1\], got 'auto'"):
        Inner(share="auto")  # type: ignore[arg-type]


@given(st.floats(allow_nan=True, allow_infinity=True))
def test_limits_admit_exactly_the_numbers_within(value: float) -> None:
    if 0 < value <= 1:
        assert Inner(share=value).share == value
    else:
        with pytest.raises(InputError, match="share must lie"):
            Inner(share=value)


def test_settings_within_settings_have_dotted_names_and_the_defaults_of_their_place() -> None:
    known = settings_of(Outer)

    assert [*known] == ["method", "states", "inner.tokens", "inner.share"]
    assert (known["inner.tokens"].default, settings_of(Inner)["tokens"].default) == (5, 20)
    assert option_of("inner.tokens", known["inner.tokens"]) == "--tokens"
    assert Outer().inner == Inner(tokens=5)


def test_what_is_amended_is_checked_and_the_rest_stays() -> None:
    before = Outer(method="fast")

    after = amended(before, {"inner.tokens": None, "states": 3})

    assert after == Outer("fast", 3, Inner(None, 0.5))
    with pytest.raises(InputError, match="tokens must be at least 1, got 0"):
        amended(before, {"inner.tokens": 0})


def test_the_published_values_are_those_that_fields_name() -> None:
    assert published(Inner) == {"tokens": 40}
    assert published(Outer) == {"inner": Inner(tokens=40)}


def test_the_docstring_lists_every_setting_and_names_others_as_python_does() -> None:
    assert "tokens: tokens of each; see `share`." in (Inner.__doc__ or "")
    assert "method: of doing it." in (Outer.__doc__ or "")


@pytest.mark.parametrize(
    ("known", "shape", "default"),
    [
        (Setting(default=3, help="", kind=int), "N", True),
        (Setting(default="auto", help="", kind=int, none="none"), "N|auto|none", True),
        (Setting(default=0.5, help="", kind=float, metavar="SHARE"), "SHARE", True),
        (Setting(default="a", help="", choices=("a", "b")), "a|b", True),
        (Setting(default=None, help=""), "NAME", False),
        (Setting(default=1.2, help="", kind=float, none="none", published=None), "NAME|none", "1.2; none with"),
    ],
)
def test_help_shows_what_may_be_said(known: Setting, shape: str, default: bool | str) -> None:
    assert known.shape() == shape
    shown = known.default_in_words()
    assert shown == default or (isinstance(default, str) and str(shown).startswith(default))


def test_no_limit_is_no_limit() -> None:
    assert settings_of(Outer)["states"].most == math.inf
