"""Phones by cable as devices."""

from bocr_onnx.devices.android.device import Android

__all__ = ["Android"]
