"""The page in a real browser. Opt in with ``-m browser`` (`make test-browser`): it needs a Chromium, which the project does not install."""

from __future__ import annotations

import shutil
import socket
import threading
import time

import numpy as np
import pytest
import torch
import uvicorn

from contracts.records import AugmentedVector, InteractionEvent, ItemEvent, Knowledge, ModelManifest
from contracts.settings import load_settings
from ranker.bundle import Bundle, BundleHolder
from ranker.catalogue import Catalogue
from ranker.crm import CRM, CRMConfig
from ranker.features import FeatureConfig
from ranker.histories import Histories
from ranker.scoring import Scorer
from ranker.serving.app import build_app
from ranker.vectors import VectorMatrix

HOSTILE = "<img src=x onerror=\"document.title='owned'\">"
HOUR_MS = 3_600_000
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"]
FLAGS += ["--disable-component-update", "--disable-sync"]
SECTIONS = ("local", "science", "culture", "sport")
WORDS = ("harbour", "orchard", "signal", "quarry", "lantern", "meadow", "furnace", "ferry")


def pytest_ignore_collect(collection_path, config):
    return True if "browser" not in config.option.markexpr else None


@pytest.fixture(scope="session")
def chromium():
    from playwright.sync_api import sync_playwright

    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.fail("got no chromium on the path; wanted one to show the page in; `apt-get install -y chromium` (Debian)")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=FLAGS)
        yield browser
        browser.close()


def _ranker(now_ms):
    """Three readers, twenty items; one hostile title, one item without knowledge, one reader without."""
    settings = load_settings()
    sizes = FeatureConfig(user_buckets=500, item_buckets=500, attribute_buckets=100, history=10, n_attributes=2, d_embedding=8)
    catalogue, histories, holder = Catalogue(sizes), Histories(100, 10), BundleHolder()
    for n in range(20):
        title = HOSTILE if n == 19 else f"The {WORDS[n % 8]} of the {WORDS[(3 * n + 1) % 8]}, part {n}"
        attributes = {"section": (SECTIONS[n % 4],)}
        catalogue.apply(ItemEvent(item=f"n{n}", published_ms=now_ms - (20 - n) * HOUR_MS, title=title, attributes=attributes))
    clicks = [(f"reader-{r}", f"n{(7 * r + 5 * c) % 20}", now_ms - c * HOUR_MS - 1) for r in range(3) for c in range(6)]
    histories.learn_many(
        [InteractionEvent(user=u, item=i, action="skip" if at % 2 else "click", event_ms=at) for u, i, at in clicks]
    )
    torch.manual_seed(3)
    crm = CRM(CRMConfig(backbone="din", features=sizes, d_aug=8))
    for parameter in crm.parameters():
        torch.nn.init.normal_(parameter, std=0.25)
    vectors, rng = VectorMatrix(8, version=1), np.random.default_rng(3)
    for subject in ["user:reader-0", "user:reader-1", *(f"item:n{n}" for n in range(19))]:
        raw = rng.standard_normal(8, dtype=np.float32).tobytes()
        vectors.apply(AugmentedVector(subject=subject, vector=raw, version=1, tier="individual", as_of_ms=now_ms, trigger_ms=0))
    manifest = ModelManifest(
        version=1, step=7, state="ready", backbone="din", weights="w", sha256="", collection="c", encoder="e",
        d_text=8, d_aug=8, created_ms=0,
    )  # fmt: skip
    holder.install(Bundle(crm=crm, vectors=vectors, manifest=manifest))
    return Scorer(holder, histories, catalogue, settings), settings


def _knowledge_of(now_ms):
    def knowledge_of(subjects):
        return {
            subject: Knowledge(
                subject=subject, tier="individual", backend="openai", model="a-model", scenario="news", prompt_version="1",
                factors={"topic": f"topic of {subject}", "tone": "calm and exact", "place": HOSTILE},
                summary=f"In short: {subject}.", as_of_ms=now_ms - 2 * HOUR_MS,
            )
            for subject in subjects
            if subject != "item:n19"
        }  # fmt: skip

    return knowledge_of


@pytest.fixture(scope="session")
def address():
    """The page's address, served by uvicorn in a thread."""
    now_ms = time.time_ns() // 1_000_000
    scorer, settings = _ranker(now_ms)
    about = {"simulated": True, "dataset": "news"}
    app = build_app(scorer, _knowledge_of(now_ms), lambda: {"items": True}, None, settings, about)
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    server.should_exit = True
    thread.join(10)
    listening.close()


@pytest.fixture
def page(chromium, address):
    """A page that was just opened; the test fails if the page logged an error."""
    context = chromium.new_context(viewport={"width": 1200, "height": 900})
    page = context.new_page()
    errors = []
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.on(
        "console", lambda message: errors.append(message.text) if message.type == "error" and "503" not in message.text else None
    )
    page.goto(address)
    page.locator("li.item").first.wait_for()
    yield page
    context.close()
    assert errors == []
