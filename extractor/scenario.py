"""A scenario: one domain's words and factors, read from a TOML file, so that a new domain needs no code.

Items and users are asked about the same factors, so both sides of the ranking model match (REKI, section 3.1).
"""

from __future__ import annotations

import tomllib
from collections import Counter
from pathlib import Path
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, ValidationError, ValidationInfo, field_validator

from contracts.errors import SettingsError

FOLDER: Final = Path(__file__).parent / "scenarios"
DERIVED: Final = frozenset({"@title", "@text", "@decade"})  # sources that are no attribute; see backends/attributes.py

Name = Annotated[str, StringConstraints(pattern=r"^[a-z][a-z0-9_]{0,39}$")]
Wording = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f<>]+$", max_length=200)]
Attribute = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x1f\x7f<>@]+$", max_length=256)]


class Example(BaseModel):
    """An item that shows what a scenario is about: for `reki scenario check`, in no other prompt."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: Annotated[str, StringConstraints(min_length=1, max_length=300)]
    text: Annotated[str, StringConstraints(max_length=2_000)] = ""
    attributes: dict[str, tuple[Annotated[str, StringConstraints(min_length=1, max_length=256)], ...]] = {}


class Scenario(BaseModel):
    """One domain. ``factors`` maps each factor to its meaning in one line, in the order of every prompt.

    ``from_attributes`` says, for the backend without a language model, which attributes of an item feed which factor.
    ``examples`` go into no prompt but that of `reki scenario check`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    name: Name
    version: Wording
    item_word: Wording
    user_word: Wording
    liked_word: Wording
    disliked_word: Wording
    seen_word: Wording
    attributes: Annotated[tuple[Attribute, ...], Field(max_length=32)]
    factors: Annotated[dict[Name, Wording], Field(min_length=3, max_length=16)]
    from_attributes: dict[str, tuple[str, ...]] = {}
    examples: Annotated[tuple[Example, ...], Field(max_length=16)] = ()

    @field_validator("attributes")
    @classmethod
    def _each_once(cls, given: tuple[str, ...]) -> tuple[str, ...]:
        twice = [name for name, n in Counter(given).items() if n > 1]
        if twice:
            raise ValueError(f"named more than once: {', '.join(map(repr, twice))}")
        return given

    @field_validator("examples")
    @classmethod
    def _shown_attributes(cls, given: tuple[Example, ...], info: ValidationInfo) -> tuple[Example, ...]:
        known = info.data.get("attributes")
        wrong = sorted({name for example in given for name in example.attributes} - set(known)) if known is not None else []
        if wrong:
            raise ValueError(f"not in `attributes`: {', '.join(map(repr, wrong))}")
        return given

    @field_validator("from_attributes")
    @classmethod
    def _known_names(cls, given: dict[str, tuple[str, ...]], info: ValidationInfo) -> dict[str, tuple[str, ...]]:
        wrong = []
        if "factors" in info.data:
            wrong += [f"no factor is named {name!r}" for name in given if name not in info.data["factors"]]
        if "attributes" in info.data:
            known = DERIVED.union(info.data["attributes"])
            wrong += [
                f"{s!r} is neither in `attributes` nor one of {sorted(DERIVED)}"
                for v in given.values()
                for s in v
                if s not in known
            ]
        if wrong:
            raise ValueError("; ".join(wrong))
        return given


def shipped_scenarios() -> dict[str, Path]:
    """The scenarios that come with reki, by name."""
    return {file.stem: file for file in sorted(FOLDER.glob("*.toml"))}


def load_scenario(name_or_path: str) -> Scenario:
    """The scenario of that name in extractor/scenarios, or in that TOML file.

    Args:
        name_or_path: One of `shipped_scenarios`, or the path of a file of the same form.

    Raises:
        SettingsError: The file is missing, not TOML, or wrong; with every mistake, one a line.
    """
    shipped = shipped_scenarios()
    path = shipped.get(name_or_path) or Path(name_or_path)
    wanted = f"one of {', '.join(shipped)}, or a TOML file such as extractor/scenarios/news.toml"
    try:
        return Scenario.model_validate(tomllib.loads(path.read_text(encoding="utf-8")))
    except ValidationError as error:
        lines = [f"  {'.'.join(map(str, e['loc'])) or '(file)'}: got {e['input']!r:.80}; {e['msg']}" for e in error.errors()]
        got = f"{len(lines)} mistake{'s' * (len(lines) > 1)} in scenario {name_or_path}:\n" + "\n".join(lines) + "\n"
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        got = f"scenario {name_or_path}, which is not TOML ({error})"
    except OSError as error:
        got = f"scenario {name_or_path!r}, which cannot be read ({error.strerror})"
    raise SettingsError(got, wanted=wanted, todo="mend the file or extract.scenario in reki.toml")
