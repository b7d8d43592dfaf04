"""The broker and the vector store that all integration tests share: real ones, on free ports, in a throw-away home."""

from collections.abc import Iterator

import pytest

from contracts.settings import Kafka, Milvus, Settings
from streams.embedded.processes import EmbeddedServices
from streams.embedded.programs import free_port
from streams.embedded.supervision import end_left_over


@pytest.fixture(scope="session")
def services(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Settings with the addresses of both. Use topic and collection prefixes of your own."""
    home = tmp_path_factory.mktemp("services") / "home"
    settings = Settings(
        home=home,
        metrics_port=free_port(),
        kafka=Kafka(embedded_port=free_port(2)),
        milvus=Milvus(embedded_port=free_port()),
    )
    try:
        with EmbeddedServices(settings):
            yield settings
    finally:
        end_left_over(home)
