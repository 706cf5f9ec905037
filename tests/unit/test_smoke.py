"""The corner of the matrix that this environment is: its redis-py on its server, and on the system's Redis.

Clusters and Sentinels have tests of their own.
"""

import pytest
import smoke
from least_privilege import servers


@pytest.mark.parametrize("mode", ["standard", "TLS"])
@pytest.mark.parametrize("binary", servers())
def test_a_store_works(binary: str, mode: str) -> None:
    assert smoke.main(binary, mode) in ("ok", "missing: built without TLS")
