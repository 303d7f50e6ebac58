"""A repo's page on the local Hub in a real browser, wide and narrow, dark and light."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from chromium import Browser, find_browser
from huggingface_hub import CommitOperationAdd

from hub.test_localhub_runs import event_file

if TYPE_CHECKING:
    from huggingface_hub import HfApi

    from hub_process import HubProcess

CHROMIUM = find_browser()
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no Chromium on this machine"),
]
# The number of visible charts.
CHARTS = """
[...document.querySelectorAll("svg")].filter((svg) => {
  const box = svg.getBoundingClientRect();
  return box.width > 100 && box.height > 50 && box.right <= innerWidth && svg.querySelector("polyline");
}).length
"""


def test_runs_fit_a_wide_and_a_narrow_window_in_dark_and_light(hub: HubProcess, api: HfApi, repo_id: str) -> None:
    assert CHROMIUM
    api.create_repo(repo_id)
    content = event_file(200) + event_file(200, tag="a/tag/whose_name_" + "is_long_" * 20)
    operations = [CommitOperationAdd("runs/" + "long" * 40 + "/events.tfevents.1", content)]
    api.create_commit(repo_id, operations, commit_message="Add")
    backgrounds = set()
    with Browser(CHROMIUM) as browser:

        def value(script: str) -> object:
            return browser.call("Runtime.evaluate", expression=script, returnByValue=True)["result"].get("value")

        for scheme in ("light", "dark"):
            features = [{"name": "prefers-color-scheme", "value": scheme}]
            browser.call("Emulation.setEmulatedMedia", features=features)
            for width in (1366, 390):
                size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
                browser.call("Emulation.setDeviceMetricsOverride", **size)
                browser.call("Page.navigate", url=f"{hub.endpoint}/{repo_id}")
                browser.wait_for("document.readyState == 'complete' && document.querySelector('svg') !== null")
                assert value("document.documentElement.scrollWidth") == width
                assert value(CHARTS) == 2
            backgrounds.add(value("getComputedStyle(document.documentElement).backgroundColor"))
    assert len(backgrounds) == 2
