"""Pushes to a bucket while the network or the Hub fails."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from events import wait_until
from faults.conftest import SECONDS, SOON, fill_up
from faults.proxy import Answer, Delay, Hang, Hold, LoseAnswer
from hf_summary_writer.errors import RateLimitError, TemporaryError
from hub.test_bucket import needs_a_client_for_buckets

if TYPE_CHECKING:
    from pathlib import Path

    from faults.conftest import World

pytestmark = [needs_a_client_for_buckets]

BATCH = ("POST", r"/api/buckets/.*/batch")


@pytest.fixture(autouse=True)
def to_a_bucket(world: World) -> None:
    world.where = {"repo_type": "bucket"}


def failed(*paths: str, of: int, error: str = "try again") -> bytes:
    answer = {"success": False, "processed": of, "succeeded": of - len(paths)}
    return json.dumps({**answer, "failed": [{"path": path, "error": error} for path in paths]}).encode()


@pytest.mark.faults
def test_a_file_that_the_response_names_as_failed_is_sent_again_alone(world: World) -> None:
    run = world.schedule()
    run.settle()
    (world.folder / "a.txt").write_bytes(b"1")
    world.proxy.add(*BATCH, Answer(200, body=failed("a.txt", of=1)), times=1)
    assert run.push() is not None
    assert world.uploaded() == world.on_disk()
    assert run.missing() == 0


@pytest.mark.faults("N21")
@pytest.mark.parametrize("status", [200, 422])
def test_a_file_that_fails_twice_is_not_recorded_as_uploaded(world: World, status: int) -> None:
    run = world.schedule()
    run.settle()
    (world.folder / "a.txt").write_bytes(b"1")
    world.proxy.add(*BATCH, Answer(status, body=failed("a.txt", of=1)), times=2)
    assert run.push() is None
    assert run.scheduler.status().pending.refused == 1
    run.scheduler.close()  # retries the file
    assert world.uploaded() == world.on_disk()
    assert run.scheduler.status().all_arrived


@pytest.mark.faults
def test_many_files_that_fail_beside_one_that_does_not_fail_no_push(world: World) -> None:
    run = world.schedule()
    run.settle()
    for name in "abcdef":
        (world.folder / name).write_bytes(b"1")
    world.proxy.add(*BATCH, Answer(200, body=failed(*"abcde", of=6)), times=2)
    assert run.push() is not None
    assert run.scheduler.status().pending.refused == 5


@pytest.mark.faults
def test_a_longer_file_that_could_not_be_kept_is_not_replaced(world: World) -> None:
    world.api.create_bucket(world.repo_id)
    world.api.batch_bucket_files(world.repo_id, add=[(b"longer", "a.txt")])
    (world.folder / "a.txt").write_bytes(b"short")
    world.proxy.add(*BATCH, Answer(200, body=failed("a.txt.replaced", of=1)), times=1)
    run = world.schedule()
    assert "could not be copied" in str(run.next_error())
    run.push()
    assert sorted(world.uploaded().values()) == [b"longer", b"short"]


@pytest.mark.faults
def test_after_a_lost_response_later_pushes_resend_the_file_until_it_is_certain(world: World) -> None:
    run = world.schedule()
    run.settle()
    (world.folder / "a.txt").write_bytes(b"1")
    world.proxy.add(*BATCH, LoseAnswer(), times=1)
    error = run.fail()
    assert isinstance(error, TemporaryError)
    assert error.in_doubt
    run.push()
    assert run.missing() == 1  # the first batch may still be applied
    run.push()
    assert run.missing() == 0
    assert world.uploaded() == world.on_disk()


@pytest.mark.faults("N22")
def test_a_late_old_batch_does_not_replace_a_newer_one(world: World) -> None:
    run = world.schedule()
    run.settle()
    file = world.folder / "a.txt"
    file.write_bytes(b"1")
    world.hang(run, BATCH, Hold())
    file.write_bytes(b"12")
    run.push()
    world.proxy.clear()  # the old batch is applied now
    wait_until(lambda: world.uploaded() == {"a.txt": b"1"}, SECONDS)
    run.push()
    assert world.uploaded() == {"a.txt": b"12"}
    assert run.missing() == 0


@pytest.mark.faults
def test_a_hung_bucket_does_not_delay_close(world: World) -> None:
    run = world.schedule(close_timeout=1.0)
    run.settle()
    (world.folder / "a.txt").write_bytes(b"1")
    world.proxy.add("*", r"/api/buckets/", Hang(), times=float("inf"))
    run.scheduler.close()
    assert run.missing() == 1
    assert "--repo-type bucket" in world.said(30)[-1]


@pytest.mark.faults
def test_a_rate_limit_on_batches_delays_the_next_push(world: World) -> None:
    run = world.schedule()
    run.settle()
    (world.folder / "a.txt").write_bytes(b"1")
    world.proxy.add(*BATCH, Answer(429, {"RateLimit": '"api";r=0;t=7'}), times=1)
    error = run.fail()
    assert isinstance(error, RateLimitError)
    assert error.retry_after == 7
    assert SOON > run.scheduler._task.state.seconds > 0


@pytest.mark.faults("N18")
def test_storage_that_does_not_answer_is_named_instead_of_the_hub(world: World) -> None:
    run = world.schedule()
    run.settle()
    (world.folder / "a.bin").write_bytes(b"1")
    assert run.push() is not None
    (world.folder / "a.bin").write_bytes(os.urandom(10_000))
    error = world.hang(run, ("POST", r"/v\d/xorbs/"), Delay(10_000.0))
    assert "the upload did not end" in str(error)
    assert "in front of its storage" in str(error)
    world.proxy.clear()
    run.push()
    assert world.uploaded() == world.on_disk()


@pytest.mark.faults
def test_a_read_only_token_is_reported(world: World) -> None:
    run = world.schedule()
    run.settle()
    (world.folder / "a.txt").write_bytes(b"1")
    assert run.push() is not None
    world.proxy.add("GET", r"/api/buckets/.*/xet-write-token", Answer(403), times=1)
    (world.folder / "a.txt").write_bytes(b"12")
    assert "may not write to the bucket" in str(run.fail())


@pytest.mark.faults("D2")
def test_on_a_full_disk_files_are_pushed_to_a_bucket_without_extra_requests(world: World, tiny_disk: Path) -> None:
    world.folder = tiny_disk / "run"
    world.folder.mkdir()
    run = world.schedule(folder_path=world.folder)
    run.settle()
    for number in range(30):  # their ledger entries take more than one page of the disk
        (world.folder / f"{number:0100}.bin").write_bytes(b"2")
    fill_up(tiny_disk / "ballast")
    assert run.push() is not None
    before = len(world.proxy.requests)
    assert [run.push() for _ in range(3)] == [None] * 3
    assert len(world.proxy.requests) == before
    assert run.missing() == 0
    (tiny_disk / "ballast").unlink()
    (world.folder / "last.bin").write_bytes(b"3")
    run.scheduler.close()
    assert world.uploaded() == world.on_disk()
    assert run.scheduler.status().all_arrived
