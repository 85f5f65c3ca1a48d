"""Browsers as devices."""

from bocr_onnx.devices.web.device import Web

__all__ = ["Web"]
