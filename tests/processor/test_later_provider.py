"""An application that sets its tracer provider after the start, by a name it imported before."""

import subprocess
import sys

PROGRAM = """
from opentelemetry.trace import set_tracer_provider  # before anything of ours is there
from opentelemetry.sdk.trace import TracerProvider
from spanledger.api.settings import Section, Settings
from spanledger.processor.sampler import KeepGenAI
from spanledger.processor.startup import start, stop

start(Settings(root=Section({}, "test"), journal="memory://"), service="test")
provider = TracerProvider()
set_tracer_provider(provider)
assert isinstance(provider.sampler, KeepGenAI), provider.sampler
processors = [type(p).__name__ for p in provider._active_span_processor._span_processors]
assert processors == ["LedgerSpanProcessor"], processors
stop()
"""


def test_it_gets_our_sampler_and_processor() -> None:
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
