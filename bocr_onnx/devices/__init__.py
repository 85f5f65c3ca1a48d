"""Where latency is measured. Now: this host."""

from bocr_onnx.devices.local import Latency, compare_latency

__all__ = ["Latency", "compare_latency"]
