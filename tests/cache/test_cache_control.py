import asyncio
import threading

import pytest

from spanledger.cache import cache_control
from spanledger.cache.control import Control, current_control


def test_blocks_nest_and_add_up() -> None:
    assert current_control() == Control()
    with cache_control(ttl="5m"):
        with cache_control(refresh=True):
            assert current_control() == Control(refresh=True, ttl_s=300)
            with cache_control(refresh=False, ttl=1.5):
                assert current_control() == Control(ttl_s=1.5)
        assert current_control() == Control(ttl_s=300)
    with pytest.raises(KeyError), cache_control(bypass=True):
        raise KeyError
    assert current_control() == Control()


@pytest.mark.parametrize("ttl", ["soon", "", -1, True])
def test_a_ttl_that_is_none_is_refused_where_it_is_said(ttl: object) -> None:
    with pytest.raises(ValueError, match="ttl"), cache_control(ttl=ttl):  # type: ignore[arg-type]
        pass
    assert current_control() == Control()


async def test_tasks_and_threads_do_not_see_each_others() -> None:
    async def inside() -> Control:
        with cache_control(bypass=True):
            await asyncio.sleep(0.01)
            return current_control()

    async def beside() -> Control:
        await asyncio.sleep(0.005)
        return current_control()

    assert await asyncio.gather(inside(), beside()) == [Control(bypass=True), Control()]
    seen: list[Control] = []
    with cache_control(bypass=True):
        thread = threading.Thread(target=lambda: seen.append(current_control()))
        thread.start()
        thread.join()
    assert seen == [Control()]
