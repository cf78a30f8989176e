"""aio-pika against the broker that WEIR_COMPAT_AMQP names (see tests/harness/with_weir.py)."""

import asyncio
import os
import pathlib
import shlex
import subprocess
import sys
import uuid

import aio_pika
import pytest
import pytest_asyncio

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "harness"))

pytest_plugins = ["pytest_tally"]

ADDRESS = os.environ["WEIR_COMPAT_AMQP"]
RESTART = os.environ.get("WEIR_COMPAT_RESTART")


@pytest.fixture
def url():
    return f"amqp://guest:guest@{ADDRESS}/"


@pytest.fixture
def fresh():
    return lambda word="q": f"{word}-{uuid.uuid4().hex[:12]}"


@pytest.fixture
def restart():
    """restart(how): a coroutine that returns when the broker is back."""
    if not RESTART:
        pytest.skip("WEIR_COMPAT_RESTART is not set")

    async def act(how):
        await asyncio.to_thread(subprocess.run, [*shlex.split(RESTART), how], check=True, timeout=120)

    return act


@pytest_asyncio.fixture
async def connection(url):
    connection = await aio_pika.connect(url)
    yield connection
    await connection.close()


@pytest_asyncio.fixture
async def ch(connection):
    return await connection.channel()


@pytest_asyncio.fixture
async def queue(ch, fresh):
    return await ch.declare_queue(fresh(), exclusive=True)
