"""Per-operator regressions on pytest-benchmark (``make bench-ops``; not part of ``make test``).

Each case of the operator suite is timed for tensorlang and for onnxruntime, in one group, after a check that they
agree. Compare two saved runs with ``pytest-benchmark compare``. For ratios, use ``python -m bench ops``, which
interleaves the two.
"""

from __future__ import annotations

import pytest

# pytest-benchmark's fixture is typed by its own class, which its documentation gives as this import.
from pytest_benchmark.fixture import BenchmarkFixture

from bench import agreement, machine, operators, peers

PEERS: tuple[peers.Peer, ...] = (peers.TensorLang(), peers.JUDGE)


@pytest.mark.parametrize("peer", PEERS, ids=lambda peer: peer.name)
@pytest.mark.parametrize("name", operators.NAMES)
def test_operator(benchmark: BenchmarkFixture, name: str, peer: peers.Peer) -> None:
    case = operators.get(name)
    feeds = case.inputs(seed=0)
    threads = machine.cores()
    prepared = peer.prepare(case.path(), feeds, threads)
    if peer is not peers.JUDGE:
        expected = peers.JUDGE.prepare(case.path(), feeds, threads).outputs()
        found = agreement.check(prepared.outputs(), expected, case.path(), feeds)
        assert found.ok, str(found)
    benchmark.group = name
    benchmark.extra_info.update(family=case.family, flop=case.flop, least_bytes=case.least_bytes, threads=threads)
    benchmark(prepared.call)
