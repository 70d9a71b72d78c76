"""The capture stage: activations of both models, in one store."""

from __future__ import annotations

from taxlens.core.lazy import Lazy
from taxlens.stages.capture.capture_section import CaptureSection
from taxlens.stages.stage import Stage

CAPTURE_STAGE = Stage(
    "capture",
    "Capture both models' activations.",
    compute=Lazy("taxlens.stages.capture.capture_run:stage_capture"),
    shared=True,
    reads=(),
    section=CaptureSection,
    key="capture",
    cost=Lazy("taxlens.stages.capture.capture_run:capture_cost"),
    command=False,
    check=Lazy("taxlens.stages.capture.capture_check:check_capture"),
)
