"""Where latency is measured. Now: this host."""

from bocr_onnx.devices.local import Clock, Latency, choose_clock, compare_latency

__all__ = ["Clock", "Latency", "choose_clock", "compare_latency"]
