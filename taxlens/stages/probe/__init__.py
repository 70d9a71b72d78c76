"""The probe stage: what can be read from the activations, layer by layer."""

from __future__ import annotations

from taxlens.core.lazy import Lazy
from taxlens.stages.probe.probe_section import ProbeSection
from taxlens.stages.probe.probe_tables import PROBE_DROP, PROBES
from taxlens.stages.stage import Figure, Stage, Words

PROBE_STAGE = Stage(
    "probe",
    "Probe both models' activations.",
    compute=Lazy("taxlens.stages.probe.probe_run:stage_probe"),
    reads=(),
    section=ProbeSection,
    key="probes",
    needs=("capture",),
    tables=(PROBES, PROBE_DROP),
    figures=(
        Figure(
            "probe",
            ("probes",),
            Lazy("taxlens.stages.probe.probe_drawings:probe_drawings"),
            ("probe_drop",),
            group="Probes",
            each=True,
        ),
    ),
    words=Words(
        clauses=Lazy("taxlens.stages.probe.probe_words:probe_clauses"),
        limits=Lazy("taxlens.stages.probe.probe_words:probe_limits"),
        methods=Lazy("taxlens.stages.probe.probe_words:probe_methods"),
    ),
    check=Lazy("taxlens.stages.probe.probe_check:check_probe"),
    cost=Lazy("taxlens.stages.probe.probe_cost:probe_cost"),
)
